"""Hold the style of docstrings as far as a machine can; a part of `make lint`.

The docstring of a function begins with a verb ("Return", "Raise", "Update") or with "True if". No
docstring begins with a pronoun or a question word.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("jaxmxopt", "benchmarks", "docs", "examples")
NEVER = {"What", "Which", "Whether", "How", "Why", "It", "This", "That", "These", "Those"}
# Nouns of functions, not of properties and classes; and verbs that describe instead of saying.
NOT_OF_FUNCTIONS = {"The", "A", "An", "Returns", "Makes", "Reads", "Takes", "Writes", "Finds"}
NOT_OF_FUNCTIONS |= {"Gives", "Puts", "Evaluates", "Counts", "Checks", "Sums", "Sets", "Raises"}
NOT_OF_FUNCTIONS |= {
    "Registers",
    "Opens",
    "Describes",
    "Wraps",
    "Turns",
    "Runs",
    "Refuses",
    "Tells",
}


def is_property(node: ast.AST) -> bool:
    """Return True for a method that reads as an attribute."""
    names = {ast.unparse(item).split(".")[-1] for item in getattr(node, "decorator_list", ())}
    return bool(names & {"property", "cached_property", "setter"})


def faults(path: Path) -> Iterator[str]:
    """Yield where a docstring begins otherwise than it should."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, nodes) or not (said := ast.get_docstring(node)):
            continue
        first = said.split()[0].rstrip(",:;.")
        verb = isinstance(node, ast.FunctionDef) and not is_property(node)
        if first in NEVER or (verb and first in NOT_OF_FUNCTIONS):
            line = getattr(node, "lineno", 1)
            yield f"{path.relative_to(ROOT)}:{line}: a docstring begins with {first!r}"


def main() -> int:
    """Print all faults; the exit status says if there are any."""
    found = [
        fault
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for fault in faults(path)
    ]
    sys.stdout.write("".join(fault + "\n" for fault in found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
