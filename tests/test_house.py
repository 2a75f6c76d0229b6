"""Each folder is a contract: what it may import, and what none of them may use."""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import OF_MXNET

import jaxmxopt
from jaxmxopt._algorithms import ALGORITHMS

PACKAGE = Path(jaxmxopt.__file__).parent
# A folder may import those before it.
FOLDERS = [
    "_core",
    "_algorithms",
    "_operators",
    "_wrappers",
    "_mxnet",
    "_files",
    "_stateful",
    "_cli",
]
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


# What none of the files may use.

BANNED = (
    "mhlo",
    "stablehlo",
    "jaxlib.mlir",
    "jax.extend.mlir",
    "ir.Operation",
    "xla_cpu_small_call",
    "get_opaque_trace_state",
    "jax.interpreters",
    "Primitive(",
    "module_context",
    "lowering_parameters",
    "axis_context",
    "jaxlib.version",
    "jax._src",
)
# Documented modules of JAX, by the start of their names.
DOCUMENTED = (
    "jax",
    "jax.numpy",
    "jax.lax",
    "jax.random",
    "jax.tree_util",
    "jax.sharding",
    "jax.export",
    "jax.errors",
    "jax.dtypes",
    "jax.experimental.sparse",
)


def text(path: Path) -> str:
    return (PACKAGE / path).read_text()


def nodes(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(text(path)))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_is_used_that_jax_keeps_to_itself(path: Path) -> None:
    found = [word for word in BANNED if word in text(path)]
    assert not found, f"{path} holds {found}"


def test_xla_is_given_hints_in_one_file_at_most() -> None:
    assert len([path for path in FILES if "set_xla_metadata" in text(path)]) <= 1


def of_jax(path: Path) -> Iterator[tuple[str, str]]:
    """The modules of JAX that a file imports or imports from, and the names that it takes."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((str(node.module), alias.name) for alias in node.names)


def extends(path: Path) -> bool:
    """True if a file imports jax.extend.core."""
    return any(f"{module}.{name}".startswith("jax.extend.core") for module, name in of_jax(path))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_jax_is_asked_by_documented_names_alone(path: Path) -> None:
    for module, name in of_jax(path):
        if module.partition(".")[0] not in ("jax", "jaxlib"):
            continue
        documented = module in DOCUMENTED or (module, name) == ("jax.core", "Tracer")
        documented |= (module, name) == ("jax.experimental", "sparse")
        # Each in one file at most.
        documented |= module == "jax.experimental.xla_metadata"
        documented |= f"{module}.{name}".startswith("jax.extend.core")
        assert documented, f"{path} imports {name} from {module}"


def test_jaxprs_are_read_for_the_rows_of_embeddings_alone() -> None:
    """The interpreter behind `value_and_row_grad` is a feature: it fails loudly."""
    found = [path for path in FILES if extends(path)]
    assert len(found) <= 1, found
    behind = {module.rpartition(".")[2] for module in imported(Path("_core", "embedding.py"))}
    behind |= {module.split(".")[-2:][0] for module in imported(Path("_core", "embedding.py"))}
    assert all(path.stem in {"embedding", *behind} for path in found), found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_jax_is_not_entered_by_an_attribute(path: Path) -> None:
    """As in `jax.extend.core.Primitive`, which an import of `jax` alone may reach."""
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            inner = node.value.id == "jax" and node.attr in ("extend", "interpreters", "_src")
            assert not inner, f"{path}:{node.lineno} reads jax.{node.attr}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_starts_threads(path: Path) -> None:
    for module, name in of_jax(path):
        where = f"{path} imports {module}.{name}"
        assert module.partition(".")[0] not in ("_thread", "multiprocessing", "concurrent"), where
        assert module != "threading" or name in ("", "Lock", "RLock", "local"), where
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "threading":
            assert node.attr in ("Lock", "RLock", "local"), f"{path}: threading.{node.attr}"


def errors(node: ast.AST) -> set[str]:
    """The names by which a handler or a function knows an exception."""
    if isinstance(node, ast.ExceptHandler):
        return {node.name} if node.name else set()
    if not isinstance(node, ast.FunctionDef):
        return set()
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    kinds = {one.arg: ast.unparse(one.annotation) for one in arguments if one.annotation}
    return {name for name, kind in kinds.items() if kind.endswith(("Error", "Exception"))}


def reads_message(node: ast.AST, names: set[str]) -> bool:
    """True if an expression holds `str(error)`, `repr(error)` or `error.args`."""
    for part in ast.walk(node):
        given = list[ast.expr]()
        if isinstance(part, ast.Attribute) and part.attr in ("args", "message"):
            given = [part.value]
        elif isinstance(part, ast.Call) and ast.unparse(part.func) in ("str", "repr", "format"):
            given = part.args
        if any(ast.unparse(one) in names for one in given):
            return True
    return False


SEARCHES = ("startswith", "endswith", "find", "index", "partition", "split", "count")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_message_of_an_error_decides_anything(path: Path) -> None:
    for scope in nodes(path):
        names = errors(scope)
        if not names:
            continue
        said = {
            ast.unparse(target)
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and reads_message(node.value, names)
            for target in node.targets
        }

        def is_message(node: ast.AST, names: set[str] = names, said: set[str] = said) -> bool:
            return reads_message(node, names) or ast.unparse(node) in said

        for node in ast.walk(scope):
            where = f"{path}:{getattr(node, 'lineno', 0)} reads the message of an error"
            if isinstance(node, ast.Compare):
                assert not any(map(is_message, (node.left, *node.comparators))), where
            elif isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Attribute) and called.attr in SEARCHES:
                    assert not is_message(called.value), where
                if ast.unparse(called).startswith("re."):
                    assert not any(map(is_message, node.args)), where


# Files of algorithms.

RULES = [path for path in INSIDE if path.parts[0] == "_algorithms" and path.name != "__init__.py"]
ONE_EACH = [path for path in RULES if not path.name.startswith("_")]
SEAM = ("algorithm", "batches", "config", "definition", "numeric", "rates", "slots")


@pytest.mark.parametrize("path", RULES, ids=str)
def test_a_rule_imports_arithmetic_and_the_seam_alone(path: Path) -> None:
    for module, name in of_jax(path):
        top, *inner = module.split(".")
        if top in sys.stdlib_module_names or top == "numpy":
            continue
        allowed = module in ("jax", "jax.numpy", "jax.random")
        allowed |= (module, name) in {("jax", "numpy"), ("jax", "random")}
        allowed |= inner[:1] == ["_core"] and inner[1:] in [[part] for part in SEAM]
        # An alias, and arithmetic that several algorithms share.
        allowed |= (path.stem, inner) in (
            ("ccsgd", ["_algorithms", "sgd"]),
            ("bertadam", ["_algorithms", "adamw"]),
        )
        allowed |= inner[:1] == ["_algorithms"] and inner[-1].startswith("_")
        assert allowed, f"{path} imports {name} from {module}"


def lines(path: Path) -> int:
    return len(text(path).splitlines())


def test_there_is_one_file_for_each_algorithm() -> None:
    assert len(ONE_EACH) == len(ALGORITHMS)


def test_files_of_algorithms_are_short() -> None:
    length = {path.stem: lines(path) for path in ONE_EACH}
    assert length["adam"] <= 75
    of_mxnet = [length[cls.__name__.lower()] for cls in OF_MXNET]
    assert statistics.median(of_mxnet) <= 85, length
    assert max(length.values()) <= 150, length
