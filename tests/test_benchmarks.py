"""The benchmarks run, on small trees, and report what they found; how long is not tested."""

import json
import re

import jax
import jax.numpy as jnp
import optax
import pytest

from benchmarks import around, contenders, lazy_rows, measure, report
from benchmarks.__main__ import PAGE, RESULTS
from benchmarks.timing import interleaved

ALGORITHMS = list(contenders.OURS)


def skip():
    pass


@pytest.fixture(autouse=True)
def small_trees(monkeypatch):
    small = {"resnet50": lambda: [(8, 4, 3, 3), (8,), (8,)], "small1000": lambda: [(4,)] * 100}
    for module in (measure, report):
        monkeypatch.setattr(module, "TREES", small)
    # optax relies on implicit promotion.
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_contenders_take_turns_and_the_first_round_warms():
    calls = []
    runs = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    assert interleaved(runs, 2) == {"a": 1e3 * 4.5, "b": 1e3 * 4.5}
    assert "".join(calls) == "abbaab"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_steps_of_all_contenders(algorithm):
    row = measure.steps("resnet50", algorithm, 1, None, skip)
    assert row["case"] == f"{algorithm} resnet50"
    assert set(row["ratios"]) >= {"optax", "limit"}
    assert row["ratios"]["optax"] == pytest.approx(
        row["milliseconds"]["jaxmxopt"] / row["milliseconds"]["optax"]
    )


def test_ours_and_optax_take_the_same_first_adam_step():
    weights, grads = (contenders.arrays_of([(8, 4)], seed) for seed in (0, 1))
    opt, tx, params = contenders.OURS["adam"](), contenders.OPTAX["adam"](), jnp.asarray(weights[0])
    mine, _ = opt.step(params, jnp.asarray(grads[0]), opt.init(params))
    updates, _ = tx.update(jnp.asarray(grads[0]), tx.init(params))
    assert jnp.allclose(mine, optax.apply_updates(params, updates), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*half-precision weights:UserWarning")
@pytest.mark.parametrize("name", around.CASES)
def test_what_stands_around_an_algorithm_does_the_same_in_both(name):
    case = around.CASES[name]()
    params = {"kernel0": jnp.full((4, 3), 0.02, case.dtype), "bias1": jnp.full(3, 0.01, case.dtype)}
    ends = []
    for side in (case.ours, case.theirs):
        weights, state = params, side.init(params)
        for _ in range(4 * case.steps):
            weights, state = side.step(weights, params, state)
        ends.append(weights)
    for mine, theirs, first in zip(*map(jax.tree.leaves, (*ends, params)), strict=True):
        assert jnp.allclose(mine, theirs, atol=1e-5 if case.dtype == jnp.float32 else 5e-4)
        assert case.steps > 1 or not jnp.array_equal(mine, first)


def test_the_report_has_a_line_for_every_row_and_a_picture_for_every_tree(tmp_path):
    rows = [measure.steps(tree, "adam", 1, None, skip) for tree in ("resnet50", "small1000")]
    rows.append(measure.steps_in_jit("resnet50", "adam", 1, skip))
    rows.append(measure.compiling("small1000", 1, skip))
    rows.append(measure.steps_around("resnet50", "adamw, norm clipped", 1, skip))
    rows.append(lazy_rows.measured("duplicate", 8, 64, 1, None))
    rows += [lazy_rows.height(8, 64, 1), lazy_rows.density(8, 64, 1)]
    rows.append(measure.peak_memory("resnet50"))
    machine = {"device": "cpu", "cores": 2, "versions": {"jax": "0"}}
    report.write({"machine": machine, "rows": rows}, tmp_path, "cpu")
    text = (tmp_path / "cpu.md").read_text()
    assert all(row["case"] in text for row in rows)
    assert rows[3]["parts"]["jaxmxopt"]["kernels"] > 1
    assert re.search(r"compiling adam small1000 (\| [\d.e-]+ ){6}\| [\d.e-]+ % \|", text)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "cpu-resnet50.png",
        "cpu-small1000.png",
    }


def test_the_page_shows_the_table_of_the_last_run(tmp_path):
    table, page = RESULTS / "cpu.md", tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    report.show(table, page)
    assert page.read_text() == PAGE.read_text()
    result = json.loads((RESULTS / "cpu.json").read_text())
    assert table.read_text() == "\n".join(report._page(result)) + "\n"
