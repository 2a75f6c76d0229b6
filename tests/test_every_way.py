"""Whichever way an update is asked for, the numbers are the same: tree, jit, `vmap`, each alone."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import every_way
import numpy as np
import pytest

SCRIPT = pathlib.Path(every_way.__file__)


@pytest.fixture(scope="module")
def exactly() -> dict[str, Any]:
    """What `every_way.py` finds where multiply and add are not fused, by algorithm."""
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env=os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = map(json.loads, done.stdout.splitlines())
    return {found.pop("algorithm"): found for found in lines}


@pytest.mark.parametrize("name", every_way.ELEMENTWISE)
def test_equal_to_the_bit_without_fused_multiply_add(name: str, exactly: dict[str, Any]) -> None:
    assert {way: off for way, off in exactly[name].items() if off} == {}


@pytest.mark.parametrize("name", every_way.ELEMENTWISE)
def test_near_with_it(name: str) -> None:
    some = ("step in a jit",)
    found = every_way.compare(name, {"as shipped": (every_way.layout.MANY, some)})
    assert max(found.values()) <= 2, found


def test_counts_and_keys_must_be_equal() -> None:
    counts = np.arange(3, dtype=np.int32)
    assert every_way.units([counts], [counts]) == 0
    assert every_way.units([counts], [counts + 1]) == np.inf
    assert every_way.units([np.float32(np.nan)], [np.float32(1)]) == np.inf
