"""Small weights in a program of their own: one kernel, which XLA runs in the thread that calls."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import ALGORITHMS, assert_near, assert_same, double_precision, make
from test_one_kernel import MARK, SUPPORTED

import jaxmxopt as mxopt
from jaxmxopt._core.compiled import apply
from jaxmxopt.algorithm import OptimizerDef

# The others sum, or draw random numbers.
ELEMENTWISE = [
    cls
    for cls in ALGORITHMS
    if cls.__name__ not in {"GroupAdaGrad", "LAMB", "LANS", "LARS", "LBSGD", "SGLD"}
]
# From here on XLA's CPU client hands a program to another thread.
OPERATIONS = 1000


def arrays(opt: Any, shape: Any, dtype: Any = jnp.float32) -> tuple[Any, Any, Any]:
    """A weight, a gradient and a state."""
    draw = np.random.default_rng(0)
    weight, grad = (jnp.asarray(draw.normal(size=shape), dtype) for _ in range(2))
    return weight, grad, opt.create_state_multi_precision(0, weight)


def in_jit(opt: Any, *args: Any) -> Any:
    """`opt.update(0, ...)` in a caller's program, which has no such loops."""
    return jax.jit(opt.update, static_argnums=0)(0, *args)


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


@pytest.mark.skipif(not SUPPORTED, reason="another jaxlib runs the plain form")
@pytest.mark.parametrize("program", [alone, stateful])
@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_runs_in_the_thread_that_calls(kind: Any, program: Any) -> None:
    for shape in ((40,), (33, 31), (2000,)):
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
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize("shape", [(), (1, 1), (7, 1, 13), (2, 3, 3, 3), (40, 0)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    opt = make(mxopt.AdamW)
    args = arrays(opt, shape)
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_other_precisions(kind: Any, dtype: str) -> None:
    with double_precision():
        opt = make(kind, multi_precision=True)
        args = arrays(opt, (77,), jnp.dtype(dtype))
        assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize(
    "rate", [jnp.int32(2), np.float16(2), jnp.ones(()), lambda t: jnp.float32(2)]
)
def test_numbers_of_all_kinds(rate: Any) -> None:
    given = {"lr_scheduler": rate} if callable(rate) else {"learning_rate": rate}
    opt = mxopt.Nadam(**given)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_numbers_that_are_none(kind: Any) -> None:
    opt = make(kind)
    weight, grad, state = arrays(opt, (77,))
    odd = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 0.0, -0.0, 1e-42, 3e38])
    for given in ((weight.at[:7].set(odd), grad), (weight, grad.at[-7:].set(odd))):
        actual, expected = opt.update(0, *given, state), in_jit(opt, *given, state)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)


def test_an_idle_update_leaves_every_bit() -> None:
    opt = mxopt.FTML(learning_rate=0.0, wd=0.1)
    weight, grad, state = arrays(opt, (77,))
    for _ in range(3):
        new, state_after = opt.update(0, weight, grad, state)
        assert_same((new, state_after.slots), (weight, state.slots))


def test_in_a_callers_program_it_is_the_plain_form() -> None:
    opt = make(mxopt.Adam)
    args = arrays(opt, (77,))
    lowered = jax.jit(opt.update, static_argnums=0).lower(0, *args)
    assert MARK not in lowered.as_text()


class Late(OptimizerDef):
    """Its rule is set after the class is made."""


def scaled(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad / weight.size * weight.ndim, slots


def filled(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return jnp.where(grad > 0, weight, jnp.full(weight.shape, weight.shape[0])), slots


def clipped(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return jax.lax.cond(rates.lr > 0, lambda w, g: w - g, lambda w, g: w, weight, grad), slots


def of_the_first(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad[0], slots


def last_apart(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return (weight - rates.lr * grad).at[-1].set(0), slots


def turned(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad[::-1], slots


def centered(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * (grad - grad.mean()), slots


def rolled(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * jnp.cumsum(grad), slots


def by_place(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad * jnp.arange(float(weight.size)), slots


def halved(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return jax.lax.fori_loop(0, 3, lambda _, w: w - rates.lr * grad, weight), slots


def in_bfloat16(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad.astype(jnp.bfloat16).astype(jnp.float32), slots


MASK = np.arange(77, dtype=np.float32)


def masked(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad * MASK, slots


@pytest.mark.parametrize("how", ["subclass", "mixin", "late"])
@pytest.mark.parametrize("rule", [scaled, filled, clipped])
def test_a_rule_by_element_is_taken_apart(rule: Any, how: str, monkeypatch: Any) -> None:
    check_rule(rule, how, monkeypatch, taken_apart=SUPPORTED)


@pytest.mark.parametrize("how", ["subclass", "mixin", "late"])
@pytest.mark.parametrize(
    "rule",
    [of_the_first, last_apart, turned, centered, rolled, by_place, masked, halved, in_bfloat16],
)
def test_a_rule_that_looks_around_or_repeats_is_not(rule: Any, how: str, monkeypatch: Any) -> None:
    check_rule(rule, how, monkeypatch, taken_apart=False)


def check_rule(rule: Any, how: str, monkeypatch: Any, *, taken_apart: bool) -> None:
    """Compares the numbers of a rule by itself with those in a caller's program."""
    body = {"_rule": rule, "__module__": __name__}
    if how == "late":
        monkeypatch.setattr(Late, "_rule", rule)
        kind: Any = Late
    elif how == "mixin":
        kind = type("Mixed", (type("Mixin", (), body), mxopt.SGD), {"__module__": __name__})
    else:
        kind = type("Other", (mxopt.SGD,), body)
    opt = kind(learning_rate=0.1)
    args = arrays(opt, (77,))
    assert (MARK in alone(opt, *args)[1]) == taken_apart
    # The name of a rule is no key of what is compiled.
    jax.clear_caches()
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize("shape", [(), (3,), (77,)])
def test_a_loop_that_would_not_end_is_skipped(shape: Any) -> None:
    class Halving(OptimizerDef):
        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            new = weight - rates.lr * grad
            large = lambda w: ~jnp.all(jnp.abs(w) < 1)  # noqa: E731
            return jax.lax.while_loop(large, lambda w: w / 2, new), slots

    opt, weight = Halving(), jnp.ones(shape)
    state = opt.init(weight)
    new, _ = opt.step(weight, weight * jnp.nan, state, where=jnp.asarray(False))
    assert_same(new, weight)


SERIES = {"log1p": jnp.log1p, "tanh": jnp.tanh, "square": jnp.square}


@pytest.mark.parametrize("name", SERIES)
def test_more_work_is_for_threads(name: str) -> None:
    class Shaped(OptimizerDef):
        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return weight - rates.lr * SERIES[name](grad), slots

    opt = Shaped()
    for size, small in ((100, True), (15_000, name == "square"), (100_000, False)):
        assert (MARK in alone(opt, *arrays(opt, (size,)))[1]) == (small and SUPPORTED)


# Those whose rules have calls that are not inlined.
WITH_CALLS = [mxopt.AdaBelief, mxopt.AdaDelta, mxopt.FTML, mxopt.Ftrl, mxopt.NAG]


@pytest.mark.parametrize("kind", WITH_CALLS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("size", [500, 16_000])
def test_no_program_depends_on_those_before(kind: Any, size: int) -> None:
    opt = make(kind)
    params = {"w": jnp.ones(size)}
    state = opt.init(params)

    def in_a_callers() -> str:
        return jax.jit(opt.step, donate_argnums=(0, 2)).lower(params, params, state).as_text()

    jax.clear_caches()
    fresh = in_a_callers()
    jax.clear_caches()
    opt.step(params, params, state)
    assert in_a_callers() == fresh
    compiled, _ = step_alone(opt, params, params, None, True)
    assert not re.findall(r"\w+\[\d\S* copy\(", compiled.as_text())


class Odd(NamedTuple):
    """Slots of which one has the shape that a step might have."""

    sums: Any
    few: Any
    count: Any


@pytest.mark.parametrize("size", [1, 8, 16, 29, 30, 31, 32])
@pytest.mark.parametrize("read", [False, True])
def test_slots_of_any_shape(size: int, read: bool) -> None:
    class Slotted(OptimizerDef):
        _slot_types = (Odd,)

        def _slots(self, weight: Any, index: Any) -> Any:
            return Odd(jnp.zeros_like(weight), jnp.arange(float(size)), jnp.int32(0))

        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            few = slots.few + 1 if read else slots.few
            sums = slots.sums + grad + (few[0] if read else 1)
            return weight - rates.lr * sums, Odd(sums, few, slots.count + 1)

    opt = Slotted(learning_rate=0.1)
    args = arrays(opt, (32 * 5,))
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize("count", [1, 600])
def test_a_rule_of_operations(count: int) -> None:
    class Long(OptimizerDef):
        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            for _ in range(count):
                weight = weight - rates.lr * grad * weight
            return weight, slots

    opt = Long(learning_rate=1e-3)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), in_jit(opt, *args), max(count, 2))


def test_a_rule_that_gives_the_same_twice() -> None:
    class Twice(mxopt.SGD):
        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            new = weight - grad
            return new, type(slots)(new)

    opt = Twice(momentum=0.9)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


def test_an_error_of_a_rule_is_raised_as_it_is() -> None:
    class Wrong(mxopt.SGD):
        def _rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            raise KeyError("of the rule")

    opt = Wrong()
    with pytest.raises(KeyError, match="of the rule"):
        opt.update(0, *arrays(opt, (77,)))


@pytest.mark.parametrize("size", [77, 20_000])
@pytest.mark.parametrize("transform", ["grad", "vmap", "jit"])
def test_a_traced_state_is_refused_in_the_stateful_layer(size: int, transform: str) -> None:
    opt = mxopt.create("adam")
    weight = jnp.ones(size)

    def loss(scale: Any) -> Any:
        state = jax.tree.map(lambda slot: slot + scale, opt.create_state(0, weight))
        return opt.update(0, weight, weight, state)[0].sum()

    traced = {"grad": jax.grad, "vmap": jax.vmap, "jit": jax.jit}[transform](loss)
    with pytest.raises(TypeError, match="got a tracer"):
        traced(jnp.ones(3) if transform == "vmap" else 1.0)
    opt.update(0, weight, weight, opt.create_state(0, weight))
    assert opt.num_update == 1


SHAPES = {"kernel": (16, 31), "bias": (31,), "scale": ()}


def few(opt: Any, dtype: Any = jnp.float32) -> tuple[Any, Any]:
    """Weights and gradients."""
    draw = np.random.default_rng(0)
    params, grads = (
        {name: jnp.asarray(draw.normal(size=SHAPES[name]), dtype) for name in SHAPES}
        for _ in range(2)
    )
    return params, grads


def step_alone(opt: Any, params: Any, grads: Any, where: Any, donate: bool) -> tuple[Any, str]:
    """The compiled program of `opt.step`, and how it was written."""
    run, numbers = opt._prepared_step(donate, True)
    lowered = run.lower(numbers, params, opt.init(params), grads, where)
    return lowered.compile(), lowered.as_text()


@pytest.mark.parametrize("where", [None, False, True])
@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_few_weights_are_updated_in_one_kernel(kind: Any, donate: bool, where: Any) -> None:
    opt = make(kind, wd_mult={"bias": 0.0}, lr_mult={"scale": 0.5})
    params, grads = few(opt)
    ok = None if where is None else jnp.asarray(where)
    compiled, written = step_alone(opt, params, grads, ok, donate)
    assert (MARK in written) == SUPPORTED
    if SUPPORTED:
        entry = re.search(r"^ENTRY .*?^}", compiled.as_text(), re.MULTILINE | re.DOTALL)
        assert entry is not None
        # Copies of numbers cost nothing.
        operations = re.findall(r"\w+\[\d.*\]\S* (\w+)\(", entry[0])
        assert not {"copy", "conditional", "while"} & set(operations)
        assert compiled.cost_analysis()["flops"] < OPERATIONS
    state = opt.init(params)
    expected = jax.jit(opt.step)(params, grads, state, where=ok)
    before = jax.tree.leaves((params, state))
    actual = opt.step(params, grads, state, where=ok, donate=donate)
    assert_near(actual, expected, 2)
    assert all(leaf.is_deleted() == donate for leaf in before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("masters", [False, True])
@pytest.mark.filterwarnings("ignore:Adam")
def test_few_weights_of_other_precisions(dtype: str, masters: bool) -> None:
    with double_precision():
        opt = make(mxopt.Adam, multi_precision=masters)
        params, grads = few(opt, jnp.dtype(dtype))
        state = opt.init(params)
        expected = jax.jit(opt.step)(params, grads, state)
        written = step_alone(opt, params, grads, None, True)[1]
        assert (MARK in written) == (SUPPORTED and dtype != "bfloat16")
        assert_near(opt.step(params, grads, state, donate=True), expected, 2)


def test_few_weights_of_which_one_has_rows() -> None:
    opt = make(mxopt.Adam, lazy_update=True)
    params, grads = few(opt)
    grads["kernel"] = mxopt.RowSparse(jnp.asarray([3]), jnp.ones((1, 31)), (16, 31))
    state = opt.init(params)
    expected = jax.jit(opt.step)(params, grads, state)
    assert_near(opt.step(params, grads, state, donate=True), expected, 2)


def test_few_weights_in_lists_and_a_trainer() -> None:
    params, grads = few(None)
    trainer = mxopt.Trainer(params, "adam", {"wd": 0.1})
    opt = mxopt.Adam(wd=0.1)
    state = opt.init(params)
    for _ in range(3):
        trainer.step(grads, batch_size=1)
        params, state = jax.jit(opt.step)(params, grads, state)
    assert_near(trainer.params, params, 2)


def test_few_weights_under_transformations() -> None:
    opt = mxopt.Adam()
    params, grads = few(opt)
    state = opt.init(params)

    def moved(rate: Any) -> Any:
        new, _ = opt.replace(learning_rate=rate).step(params, grads, state)
        return sum(leaf.sum() for leaf in new.values())

    slope = jax.grad(moved)(0.1)
    assert_near(slope, (moved(jnp.float32(1.1)) - moved(jnp.float32(0.1))), 200)
    mapped = jax.vmap(moved)(jnp.asarray([0.1, 0.2]))
    assert_near(mapped, jnp.stack([moved(jnp.float32(0.1)), moved(jnp.float32(0.2))]), 20)


def test_from_many_threads() -> None:
    opt = mxopt.Adam()
    args = [arrays(opt, (size,)) for size in range(40, 80)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda given: opt.update(0, *given), args))
    for given, result in zip(args, found, strict=True):
        assert_near(result, in_jit(opt, *given), 2)


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
