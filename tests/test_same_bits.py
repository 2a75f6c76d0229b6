"""The stateful optimizers repeat MXNet's float32 trajectories to the bit, where sums allow."""

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from same_bits import MADE_WITH, elementwise, report
from samples import distance
from trajectories import FILES

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "docs" / "fidelity.md"


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """What `same_bits.py` says of every trajectory but SGLD's, in a process of its own."""
    done = subprocess.run(
        [sys.executable, HERE / "same_bits.py"],
        env=os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_elementwise_trajectories_are_equal_to_the_bit(results: list[dict[str, Any]]) -> None:
    assert len({result["id"].rsplit("-", 1)[0] for result in results}) == len(FILES) - 1
    demanded = [result for result in results if elementwise(result) and result["exact_scalars"]]
    assert [result["id"] for result in demanded if not result["equal"]] == []


def test_counts_rates_and_decays_are_equal(results: list[dict[str, Any]]) -> None:
    assert [result["id"] for result in results if not result["same numbers"]] == []


def test_the_others_are_near(results: list[dict[str, Any]]) -> None:
    assert [result["id"] for result in results if not result["off"] <= _limit(result)] == []


def _limit(result: dict[str, Any]) -> float:
    """Units of float32; where MXNet sums squares in float16, of which 1 is 2^13."""
    return 2.0**13 if result["half"] and result["class"] == "LARS" else 16.0


@pytest.mark.parametrize(
    ("actual", "expected", "units"),
    [
        ([1.0, 4.0], [1.0, 4.0], 0),
        ([1.0, 5.0], [1.0, 4.0], 2),
        ([np.nan, 5.0, np.inf], [np.nan, 4.0, np.inf], 2),
        ([], [], 0),
        ([np.nan, 4.0], [1.0, 4.0], np.inf),
        ([1.0, 4.0], [np.nan, 4.0], np.inf),
        ([np.inf, 4.0], [-np.inf, 4.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
    ],
)
def test_what_is_not_finite_is_not_near(actual: Any, expected: Any, units: float) -> None:
    assert distance(actual, expected, 0.125) == units


def test_the_page_says_what_the_run_says(results: list[dict[str, Any]]) -> None:
    text = PAGE.read_text()
    table = re.search(r"^\| algorithm .*?(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    release = MADE_WITH.search(text)
    assert table is not None
    assert release is not None
    said, now = table.group().strip().splitlines(), report(results).strip().splitlines()
    assert [_first_cells(line) for line in said] == [_first_cells(line) for line in now]
    # The figures of algorithms with norms are those of one release.
    if release.group(1) == jax.__version__:
        assert said == now


def _first_cells(line: str) -> list[str]:
    """The algorithm and the number of its trajectories."""
    return line.split(" | ")[:2]
