"""A corpus that is on every machine: the docstrings of the Python packages installed on it."""

import ast
import collections
import itertools
import pathlib
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

STANDARD_LIBRARY = "stdlib"
# What JAX needs is there in any case.
PACKAGES = (STANDARD_LIBRARY, "jax", "numpy", "scipy", "matplotlib", "sklearn", "optax", "flax")
WORD = re.compile(r"[a-z_][a-z0-9_]+")
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Numbers = np.ndarray[Any, np.dtype[np.int32]]


class Corpus(NamedTuple):
    """Text as numbers of words.

    Attributes:
        vocabulary: the words, the most frequent first.
        words: the text, word by word; words outside of the vocabulary are left out.
        documents: to which docstring each word belongs, ascending.
        counts: how often each word of the vocabulary occurs.
        characters: how many the docstrings have.
    """

    vocabulary: list[str]
    words: Numbers
    documents: Numbers
    counts: Numbers
    characters: int


def read(packages: Sequence[str] = PACKAGES, size: int = 25_000) -> Corpus:
    """Read the docstrings of those packages that are installed, without importing any.

    Args:
        packages: names of packages; `stdlib` is the standard library.
        size: of the vocabulary, at most.
    """
    files = sorted(itertools.chain.from_iterable(map(sources, packages)))
    texts: dict[str, None] = {}  # In order, and copies of one text only once.
    for file in tqdm.tqdm(files, desc="docstrings", unit=" files", ncols=90, mininterval=0.5):
        texts.update(dict.fromkeys(docstrings(file)))
    split = [WORD.findall(text.replace("<BLANKLINE>", "").lower()) for text in texts]
    frequencies = collections.Counter(itertools.chain.from_iterable(split)).most_common(size)
    number = {word: place for place, (word, _) in enumerate(frequencies)}
    found = [(number[w], document) for document, ws in enumerate(split) for w in ws if w in number]
    words, documents = np.array(found, np.int32).reshape(-1, 2).T
    counts = np.array([count for _, count in frequencies], np.int32)
    return Corpus(list(number), words, documents, counts, sum(map(len, texts)))


def sources(package: str) -> Iterator[pathlib.Path]:
    """Return the source files of a package, without its tests; none where it is not installed."""
    standard = package == STANDARD_LIBRARY
    root = pathlib.Path(sysconfig.get_path("stdlib" if standard else "purelib"))
    for file in (root if standard else root / package).rglob("*.py"):
        inside = file.relative_to(root).parts
        if not {"test", "tests", "site-packages", "dist-packages"}.intersection(inside):
            yield file


def docstrings(file: pathlib.Path) -> Iterator[str]:
    """Return the docstrings of a module, its classes and functions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Old escape sequences.
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # Templates of code, and files of other encodings.
        return
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
            yield text
        # Definitions stand in blocks of statements alone: no expression is walked.
        pending.extend(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt))
