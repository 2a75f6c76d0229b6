"""Every public name and every page has its place on the site."""

import pathlib
import re
import sys

import pytest
from samples import ALGORITHMS

import jaxmxopt
from jaxmxopt import amp, checkpoint, interop, lr_scheduler, mxnet_files, ops, sharding

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "docs"))
import draw_paths

DOCS = pathlib.Path(draw_paths.__file__).parent
REFERENCE = "\n".join(page.read_text() for page in sorted((DOCS / "api").glob("*.md")))
CONTENTS = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("name", [n for n in vars(jaxmxopt) if re.match("[A-Za-z]", n)])
def test_every_public_name_is_in_the_reference(name):
    if isinstance(getattr(jaxmxopt, name), type(jaxmxopt)):
        return
    assert re.search(rf"^\.\. auto\w+:: jaxmxopt\.{name}$", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize(
    "module",
    [amp, checkpoint, interop, lr_scheduler, mxnet_files, ops, sharding],
    ids=lambda m: m.__name__,
)
def test_every_module_is_in_the_reference(module):
    assert f".. automodule:: {module.__name__}\n   :members:" in REFERENCE
    assert all(getattr(module, name).__doc__ for name in module.__all__)


def test_every_page_is_in_the_contents():
    patterns = [
        line for part in CONTENTS for line in part.splitlines() if line[:1] not in (":", "")
    ]
    pages = [
        str(p.relative_to(DOCS).with_suffix(""))
        for p in DOCS.rglob("*.md")
        if "_build" not in p.parts
    ]
    left = [
        page
        for page in pages
        if page != "index" and not any(pathlib.PurePath(page).match(p) for p in patterns)
    ]
    assert left == []


def test_every_algorithm_is_drawn():
    drawn = {kind for _, kind, _ in draw_paths.ALGORITHMS}
    assert {cls for cls in ALGORITHMS if cls not in drawn} == {
        jaxmxopt.BERTAdam,
        jaxmxopt.ccSGD,
        jaxmxopt.Test,
    }


def test_a_drawn_path_leads_down():
    path = draw_paths.walk(jaxmxopt.Adam, {})
    assert path.points.shape == (draw_paths.STEPS + 1, 2)
    assert path.end < 1e-6
