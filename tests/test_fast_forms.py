"""The fast forms give the plain ones' numbers: shared arrays, merged axes, loops, rows, `vmap`."""

import json
import os
import pathlib
import subprocess
import sys

import fast_forms
import numpy as np
import pytest

from jaxmxopt._core import rows as _rows

FORMS = ("tree", "few", "vmap", "alone", "rows")
SCRIPT = pathlib.Path(fast_forms.__file__)


@pytest.fixture(scope="module")
def exactly():
    """What `fast_forms.py` finds where multiply and add are not fused, by algorithm."""
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env=os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {found["algorithm"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", fast_forms.ELEMENTWISE)
def test_equal_to_the_bit_without_fused_multiply_add(name, exactly):
    assert exactly[name] == dict.fromkeys(FORMS, 0) | {"algorithm": name}


@pytest.mark.parametrize("name", fast_forms.ELEMENTWISE)
def test_near_with_it(name):
    opt, grads = fast_forms.definition(name), fast_forms.gradients()
    expected = fast_forms.plain(opt, fast_forms.tree(0), grads, fast_forms.in_jit(opt))
    assert fast_forms.units(fast_forms.whole(opt, fast_forms.tree(0), grads), expected) <= 2
    alone = fast_forms.plain(opt, fast_forms.tree(0), grads, opt.update)
    assert fast_forms.units(alone, expected) <= 2
    few = fast_forms.whole(opt, fast_forms.few(fast_forms.tree(0)), map(fast_forms.few, grads))
    assert fast_forms.units(few, tuple(map(fast_forms.few, expected))) <= 2


@pytest.mark.filterwarnings("ignore:.*lazy_update=True changes nothing:UserWarning")
@pytest.mark.parametrize("name", fast_forms.ELEMENTWISE)
def test_rows_one_by_one_are_near_those_in_blocks(name, monkeypatch):
    monkeypatch.setattr(_rows, "NARROWEST", _rows.NARROWEST)
    opt = fast_forms.definition(name)
    one_by_one = fast_forms.lazily(opt, fast_forms.BY_ROW)
    assert fast_forms.units(one_by_one, fast_forms.lazily(opt, fast_forms.IN_BLOCKS)) <= 2


def test_counts_and_keys_must_be_equal():
    counts = np.arange(3, dtype=np.int32)
    assert fast_forms.units([counts], [counts]) == 0
    assert fast_forms.units([counts], [counts + 1]) == np.inf
    assert fast_forms.units([np.float32(np.nan)], [np.float32(1)]) == np.inf
