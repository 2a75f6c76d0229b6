"""A small weight that is updated by itself: one kernel, which XLA runs in the thread that calls."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import ALGORITHMS, assert_near, assert_same, double_precision, make
from test_one_kernel import MARK, SUPPORTED

import jaxmxopt as mxopt
from jaxmxopt import _short_loop
from jaxmxopt._compiled import apply
from jaxmxopt.algorithm import OptimizerDef

ELEMENTWISE = [cls for cls in ALGORITHMS if cls._elementwise]
BY_ROW_OR_WHOLE = {"GroupAdaGrad", "LAMB", "LANS", "LARS", "LBSGD", "SGLD"}
# From here on XLA's CPU client hands a program to another thread.
OPERATIONS = 1000


def arrays(opt: Any, shape: Any, dtype: Any = jnp.float32) -> tuple[Any, Any, Any]:
    """A weight, a gradient and a state."""
    draw = np.random.default_rng(0)
    weight, grad = (jnp.asarray(draw.normal(size=shape), dtype) for _ in range(2))
    return weight, grad, opt.create_state_multi_precision(0, weight)


def alone(opt: Any, *args: Any) -> Any:
    """The compiled program of `opt.update(0, ...)`, and how it was written."""
    run, numbers = opt._prepared(0, True)
    lowered = run.lower(numbers, *args)
    return lowered.compile(), lowered.as_text()


def stateful(opt: Any, weight: Any, grad: Any, state: Any) -> Any:
    """That of the stateful layer."""
    numbers = jax.tree.map(float, (opt._rates(0.1, 0.2, 3), opt._with(learning_rate=None)))
    leaves, structure = jax.tree.flatten(numbers)
    lowered = apply(structure, True).lower(np.float32(leaves), weight, grad, state.slots)
    return lowered.compile(), lowered.as_text()


def test_all_but_those_with_sums_are_elementwise() -> None:
    names = {cls.__name__ for cls in ALGORITHMS}
    assert {cls.__name__ for cls in ELEMENTWISE} == names - BY_ROW_OR_WHOLE


@pytest.mark.skipif(not SUPPORTED, reason="another jaxlib runs the plain form")
@pytest.mark.parametrize("program", [alone, stateful])
@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_runs_in_the_thread_that_calls(kind: Any, program: Any) -> None:
    for shape in ((40,), (33, 31), (_short_loop.LONGEST,)):
        compiled, written = program(make(kind), *arrays(make(kind), shape))
        assert MARK in written
        assert compiled.cost_analysis()["flops"] < OPERATIONS
        entry = re.search(r"^ENTRY .*?^}", compiled.as_text(), re.MULTILINE | re.DOTALL)
        assert entry is not None
        # Beside the kernel there are numbers alone.
        assert not re.search(r" (?:copy|conditional|while)\(", entry[0])
        others = re.findall(r" = \w+\[(\d*)\]\S* (?:fusion|concatenate)\(", entry[0])
        assert max(int(size or 1) for size in others) < 40


@pytest.mark.parametrize("size", [0, 1, 2, 31, 32, 33, 64, 100, 8192, 8193])
def test_every_size(size: int) -> None:
    opt = make(mxopt.Adam)
    args = arrays(opt, (size,))
    assert_near(opt.update(0, *args), jax.jit(opt.update, static_argnums=0)(0, *args), 2)


@pytest.mark.parametrize("shape", [(), (1, 1), (7, 1, 13), (2, 3, 3, 3), (40, 0)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    opt = make(mxopt.AdamW)
    args = arrays(opt, shape)
    assert_near(opt.update(0, *args), jax.jit(opt.update, static_argnums=0)(0, *args), 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_other_precisions(kind: Any, dtype: str) -> None:
    with double_precision():
        opt = make(kind, multi_precision=True)
        args = arrays(opt, (77,), jnp.dtype(dtype))
        assert_near(opt.update(0, *args), jax.jit(opt.update, static_argnums=0)(0, *args), 2)


@pytest.mark.parametrize(
    "rate", [jnp.int32(2), np.float16(2), jnp.ones(()), lambda t: jnp.float32(2)]
)
def test_numbers_of_all_kinds(rate: Any) -> None:
    given = {"lr_scheduler": rate} if callable(rate) else {"learning_rate": rate}
    opt = mxopt.Nadam(**given)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), jax.jit(opt.update, static_argnums=0)(0, *args), 2)


def test_an_idle_update_leaves_everything() -> None:
    # FTML skips where rescale_grad is 0.
    for cls in ELEMENTWISE:
        opt = make(cls, rescale_grad=0.0, wd=0.0)
        args = arrays(opt, (77,))
        expected = jax.jit(opt.update, static_argnums=0)(0, *args)
        assert_same(opt.update(0, *args)[0], expected[0])


def test_in_a_callers_program_it_is_the_plain_form() -> None:
    opt = make(mxopt.Adam)
    args = arrays(opt, (77,))
    lowered = jax.jit(opt.update, static_argnums=0).lower(0, *args)
    assert MARK not in lowered.as_text()


@pytest.mark.parametrize("said", [False, True])
def test_a_subclass_with_another_rule_says_it_again(said: bool) -> None:
    class Centered(mxopt.Adam):
        if said:
            _elementwise = True

        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return super()._rule(rates, weight, -grad, slots)

    class Same(mxopt.Adam):
        pass

    assert Centered._elementwise == said
    assert Same._elementwise
    opt = make(Centered)
    args = arrays(opt, (77,))
    assert (MARK in alone(opt, *args)[1]) == (said and SUPPORTED)


def test_a_rule_that_knows_the_shape_is_not_taken_apart() -> None:
    class Last(OptimizerDef):
        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return (weight - rates.lr * grad / weight.size).at[-1].set(0), slots

    opt = Last(learning_rate=1.0)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), jax.jit(opt.update, static_argnums=0)(0, *args), 2)


def test_a_rule_of_very_many_operations() -> None:
    class Long(OptimizerDef):
        _elementwise = True

        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            for _ in range(600):
                weight = weight - rates.lr * grad * weight
            return weight, slots

    opt = Long(learning_rate=1e-3)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), jax.jit(opt.update, static_argnums=0)(0, *args), 600)


def test_compiles_as_seldom_as_ever(compilations: Any) -> None:
    opt = mxopt.create("adam")
    ones = jnp.ones(77)
    state = opt.create_state(0, ones)
    opt.update(0, ones, ones, state)
    with compilations as seen:
        opt.lr, opt.wd, opt.beta1 = 0.5, 0.1, 0.8
        for index in "abc":
            opt.update(index, ones, ones, state)
    assert seen.count == 0
