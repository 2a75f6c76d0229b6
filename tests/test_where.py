"""A step with `where=False` leaves no trace: weights, slots, masters, counts and averages."""

from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from samples import ALGORITHMS, OF_PRODUCTS, OF_THE_WHOLE, assert_near, assert_same, make

import jaxmxopt as mxopt

YES, NO = jnp.bool_(True), jnp.bool_(False)
SHAPES = {"a": (3, 2), "b": (3, 2), "table": (6, 2)}
Wrapper = Callable[[Any], Any]


def frozen(opt: Any) -> Any:
    return mxopt.Groups({"b": None, "*": opt})


WRAPPERS: dict[str, Wrapper] = {
    "alone": lambda opt: opt,
    "Accumulate": lambda opt: mxopt.Accumulate(opt, every=3),
    "EMA": lambda opt: mxopt.EMA(opt, decay=0.9),
    "EMA, biased": lambda opt: mxopt.EMA(opt, decay=0.9, debias=False),
    "ClipGlobalNorm": lambda opt: mxopt.ClipGlobalNorm(opt, max_norm=0.5),
    "Groups": lambda opt: mxopt.Groups({"a": opt, "*": mxopt.SGD(momentum=0.5)}),
    "Groups, one frozen": frozen,
}
TWO: dict[str, Wrapper] = {
    f"{outer} of {inner}": lambda opt, outer=outer, inner=inner: WRAPPERS[outer](
        WRAPPERS[inner](opt)
    )
    for outer in WRAPPERS
    for inner in WRAPPERS
    if "alone" not in (outer, inner) and "biased" not in outer + inner
}
DEEP: Wrapper = lambda opt: mxopt.EMA(  # noqa: E731
    mxopt.Accumulate(mxopt.ClipGlobalNorm(frozen(opt), max_norm=0.5), every=2)
)


def tree(seed: int, dtype: Any = jnp.float32) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {name: jnp.asarray(draw.normal(size=SHAPES[name]), dtype) for name in SHAPES}


def gradients(seed: int, dtype: Any = jnp.float32, rows: bool = False) -> dict[str, Any]:
    """Gradients of which that of the table holds some rows, one of them twice."""
    grads = tree(seed, dtype)
    if rows:
        values = grads["table"][:3]
        grads["table"] = mxopt.RowSparse(np.int32([4, 1, 4]), values, SHAPES["table"])
    return grads


def broken(grads: Any) -> Any:
    """What a loss that overflowed gives: NaN everywhere."""
    return jax.tree.map(
        lambda leaf: (
            jnp.full_like(leaf, np.nan) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        ),
        grads,
    )


def trained(opt: Any, steps: int = 2, dtype: Any = jnp.float32, rows: bool = False) -> Any:
    """Weights and a state after some steps, none of which was skipped."""
    params = tree(0, dtype)
    state = opt.init(params)
    for step in range(1, steps + 1):
        params, state = opt.step(params, gradients(step, dtype, rows), state, where=YES)
    return params, state


def assert_skips(opt: Any, params: Any, state: Any, grads: Any) -> None:
    """A skipped step changes no bit, whatever the gradients."""
    for given in (grads, broken(grads)):
        assert_same(opt.step(params, given, state, where=NO), (params, state))


def assert_skips_in_jit(opt: Any, params: Any, state: Any, grads: Any) -> None:
    """The same where it is not known before compiling."""
    step = jax.jit(lambda p, g, s, ok: opt.step(p, g, s, where=ok))
    assert_same(step(params, broken(grads), state, NO), (params, state))


def test_every_algorithm_leaves_no_trace(cls: type[mxopt.OptimizerDef]) -> None:
    opt = make(cls)
    params, state = trained(opt, steps=3)
    assert_skips(opt, params, state, gradients(9))
    assert_skips_in_jit(opt, params, state, gradients(9))


def test_every_algorithm_leaves_no_trace_in_wrappers(cls: type[mxopt.OptimizerDef]) -> None:
    opt = DEEP(make(cls))
    assert_skips(opt, *trained(opt, steps=3), gradients(9))


def test_every_algorithm_leaves_no_trace_of_rows_in_masters(cls: type[mxopt.OptimizerDef]) -> None:
    lazy = cls.__name__ not in (*OF_THE_WHOLE, *OF_PRODUCTS, "SGLD")
    opt = mxopt.EMA(make(cls, lazy_update=lazy, multi_precision=True))
    params, state = trained(opt, 2, jnp.float16, rows=True)
    assert_skips(opt, params, state, gradients(9, jnp.float16, rows=True))


@pytest.mark.parametrize("wrapped", [*WRAPPERS, *TWO])
def test_every_wrapper_leaves_no_trace(wrapped: str) -> None:
    opt = (WRAPPERS | TWO)[wrapped](make(mxopt.Adam, lazy_update=True))
    assert_skips(opt, *trained(opt, rows=True), gradients(9, rows=True))


@pytest.mark.parametrize("wrapped", [name for name in WRAPPERS if "biased" not in name])
def test_every_wrapper_leaves_no_trace_in_jit_and_where_buffers_are_given_away(
    wrapped: str,
) -> None:
    opt = WRAPPERS[wrapped](make(mxopt.SGD, lazy_update=True))
    params, state = trained(opt, rows=True)
    grads = gradients(9, rows=True)
    assert_skips_in_jit(opt, params, state, grads)
    given = jax.tree.map(jnp.copy, (params, state))
    kept = opt.step(given[0], broken(grads), given[1], where=NO, donate=True)
    assert_same(kept, (params, state))


def test_a_tree_of_many_small_weights_is_left_as_it_is() -> None:
    opt = DEEP(make(mxopt.Nadam))
    draw = np.random.default_rng(0)
    params = {str(n): jnp.asarray(draw.normal(size=3), jnp.float32) for n in range(120)} | tree(0)
    state = opt.init(params)
    for _ in range(3):
        params, state = opt.step(params, params, state, where=YES)
    assert_same(opt.step(params, broken(params), state, where=NO), (params, state))


# After a hyperparameter was replaced.

REPLACED: dict[str, tuple[Wrapper, dict[str, Any]]] = {
    "every, fewer": (lambda opt: mxopt.Accumulate(opt, every=4), {"every": 2}),
    "every, one": (lambda opt: mxopt.Accumulate(opt, every=4), {"every": 1}),
    "every, more": (lambda opt: mxopt.Accumulate(opt, every=4), {"every": 9}),
    "every, inside": (
        lambda opt: mxopt.EMA(mxopt.Accumulate(opt, every=4), decay=0.9),
        {"definition": mxopt.Accumulate(make(mxopt.Adam), every=2)},
    ),
    "every, of a group": (
        lambda opt: mxopt.Groups({"a": mxopt.Accumulate(opt, every=4), "*": opt}),
        {"groups": {"a": mxopt.Accumulate(make(mxopt.Adam), every=2), "*": make(mxopt.Adam)}},
    ),
    "decay": (lambda opt: mxopt.EMA(opt, decay=0.9), {"decay": 0.1}),
    "debias": (lambda opt: mxopt.EMA(opt, decay=0.9), {"debias": False}),
    "max_norm": (lambda opt: mxopt.ClipGlobalNorm(opt, max_norm=0.5), {"max_norm": 9.0}),
    "learning_rate": (DEEP, {"learning_rate": 0.5}),
    "rescale_grad": (DEEP, {"rescale_grad": 0.25}),
    "wd": (lambda opt: mxopt.EMA(opt), {"wd": 0.0}),
    "clip_gradient": (lambda opt: mxopt.EMA(opt), {"clip_gradient": None}),
    "lr_scheduler": (lambda opt: mxopt.EMA(opt), {"lr_scheduler": lambda t: 0.5 / jnp.float32(t)}),
    "lr_mult": (lambda opt: mxopt.EMA(opt), {"lr_mult": {"a": 0.0}}),
    "lazy_update": (lambda opt: mxopt.EMA(opt), {"lazy_update": False}),
}


@pytest.mark.parametrize("name", REPLACED)
def test_a_replaced_hyperparameter_leaves_no_trace(name: str) -> None:
    wrap, changes = REPLACED[name]
    opt = wrap(make(mxopt.Adam))
    params, state = trained(opt, steps=3)
    assert_skips(opt.replace(**changes), params, state, gradients(9))


def test_gradients_that_are_enough_by_now_wait_for_a_step_that_is_not_skipped() -> None:
    opt = mxopt.Accumulate(mxopt.SGD(learning_rate=1.0), every=4)
    params, state = {"w": jnp.zeros(2)}, opt.init({"w": jnp.zeros(2)})
    ones = {"w": jnp.ones(2)}
    for _ in range(3):
        params, state = opt.step(params, ones, state)
    opt = opt.replace(every=2)
    for _ in range(2):
        assert_same(opt.step(params, broken(ones), state, where=False), (params, state))
    params, state = opt.step(params, ones, state, where=True)
    assert_same(params["w"], -jnp.ones(2))
    assert state.num_update == 1


def test_a_batch_scale_that_was_replaced_leaves_no_trace() -> None:
    opt = make(mxopt.LBSGD, batch_scale=4)
    params, state = trained(opt, steps=3)
    assert_skips(opt.replace(batch_scale=2), params, state, gradients(9))


# Whatever was done before.


def wrappers() -> Any:
    return st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=2)


@hypothesis.settings(max_examples=8)
@hypothesis.given(
    cls=st.sampled_from(ALGORITHMS),
    around=wrappers(),
    steps=st.integers(0, 3),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    rows=st.booleans(),
    skipped=st.integers(1, 3),
)
def test_skipped_steps_among_others_are_as_if_they_had_not_been(
    cls: Any, around: list[str], steps: int, dtype: str, rows: bool, skipped: int
) -> None:
    opt = make(cls, multi_precision=True)
    for name in around:
        opt = WRAPPERS[name](opt)
    kind = jnp.dtype(dtype)
    params, state = trained(opt, steps, kind, rows)
    for seed in range(skipped):
        bad = broken(gradients(50 + seed, kind, rows))
        kept = opt.step(params, bad, state, where=NO)
        assert_same(kept, (params, state))
    grads = gradients(9, kind, rows)
    after = opt.step(kept[0], grads, kept[1], where=YES)
    assert_same(after, opt.step(params, grads, state, where=YES))


@pytest.mark.parametrize("kind", [bool, np.bool_, jnp.bool_, np.array], ids=lambda kind: str(kind))
@pytest.mark.parametrize("wrapped", ["alone", "Accumulate", "EMA", "Groups, one frozen"])
def test_any_boolean_will_do(wrapped: str, kind: Any) -> None:
    opt = WRAPPERS[wrapped](make(mxopt.SGD))
    params, state = trained(opt)
    assert_same(opt.step(params, gradients(9), state, where=kind(False)), (params, state))
    moved, _ = opt.step(params, gradients(9), state, where=kind(True))
    assert_near(moved, opt.step(params, gradients(9), state)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, "integers", "nothing"])
def test_what_a_frozen_weight_is_given_leaves_no_trace(bad: Any) -> None:
    opt = mxopt.EMA(mxopt.ClipGlobalNorm(frozen(make(mxopt.Adam)), max_norm=0.5))
    params, state = trained(opt)
    odd = {"integers": jnp.ones((3, 2), jnp.int32), "nothing": None}
    wrong = odd[bad] if isinstance(bad, str) else jnp.full((3, 2), bad)
    grads = gradients(9) | {"b": wrong}
    assert_same(opt.step(params, grads, state, where=NO), (params, state))


def test_under_scan_and_vmap_each_step_is_skipped_or_not() -> None:
    opt = DEEP(make(mxopt.Adam))
    params, state = trained(opt, steps=1)
    oks = jnp.array([True, False, True, False, True])
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *(gradients(seed) for seed in range(5)))

    def body(now: Any, given: Any) -> Any:
        grads, ok = given
        return opt.step(now[0], grads, now[1], where=ok), None

    found, _ = jax.lax.scan(body, (params, state), (stacked, oks))
    expected = params, state
    for seed in (0, 2, 4):
        expected = opt.step(expected[0], gradients(seed), expected[1])
    assert_near(found, expected, 8)
    mapped = jax.vmap(lambda ok: opt.step(params, broken(gradients(1)), state, where=ok))(~oks[:2])
    assert_same(jax.tree.map(lambda leaf: leaf[0], mapped), (params, state))
