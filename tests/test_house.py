"""Each folder is a contract: what it may import, and what none of them may use."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxmxopt

PACKAGE = Path(jaxmxopt.__file__).parent
# A folder may import those before it.
FOLDERS = ["_core", "_algorithms", "_wrappers", "_mxnet", "_files", "_stateful", "_cli"]
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
INSIDE = [path for path in FILES if path.parts[0] in FOLDERS]


def imported(path: Path) -> Iterator[str]:
    """Every module of the package that a file imports, inside of functions too."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def folder_of(module: str) -> str | None:
    """The folder of a module of this package, `""` for a public face, None for other packages."""
    parts = module.split(".")
    if parts[0] != "jaxmxopt":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FOLDERS else ""


@pytest.mark.parametrize("path", INSIDE, ids=str)
def test_a_folder_imports_those_below_it_alone(path: Path) -> None:
    below = FOLDERS[: FOLDERS.index(path.parts[0]) + 1]
    for module in imported(path):
        assert folder_of(module) in (None, *below), f"{path} imports {module}"


def test_no_private_module_lies_beside_the_public_faces() -> None:
    beside = {path.name for path in FILES if len(path.parts) == 1 and path.name.startswith("_")}
    assert beside == {"__init__.py", "__main__.py"}


def test_no_import_goes_round() -> None:
    graph = {
        ".".join(("jaxmxopt", *path.with_suffix("").parts)): set(imported(path)) for path in FILES
    }
    for name in graph:
        seen, ahead = set[str](), [name]
        while ahead:
            found = graph.get(ahead.pop(), set())
            found = {module if module in graph else module.rpartition(".")[0] for module in found}
            ahead += found - seen
            seen |= found
        assert name not in seen, name
