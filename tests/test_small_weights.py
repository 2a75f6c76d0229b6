"""Small weights, which most of the time of a call is not spent on: the numbers stay the same."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import (
    ALGORITHMS,
    OF_PRODUCTS,
    OF_THE_WHOLE,
    assert_near,
    assert_same,
    double_precision,
    make,
)

import jaxmxopt as mxopt
from jaxmxopt.algorithm import OptimizerDef

# The others sum, or draw random numbers.
ELEMENTWISE = [
    cls
    for cls in ALGORITHMS
    if cls.__name__ not in {"GroupAdaGrad", *OF_THE_WHOLE, *OF_PRODUCTS, "SGLD"}
]
elementwise = pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda cls: cls.__name__)


def arrays(opt: Any, shape: Any, dtype: Any = jnp.float32) -> tuple[Any, Any, Any]:
    """A weight, a gradient and a state."""
    draw = np.random.default_rng(0)
    weight, grad = (jnp.asarray(draw.normal(size=shape), dtype) for _ in range(2))
    return weight, grad, opt.create_state_multi_precision(0, weight)


def in_jit(opt: Any, *args: Any) -> Any:
    """`opt.update(0, ...)` in a caller's program."""
    return jax.jit(opt.update, static_argnums=0)(0, *args)


# One weight, by `update`: as in a caller's program.


@pytest.mark.parametrize("size", [0, 1, 2, 31, 32, 33, 64, 100, 8192, 8193, 16384, 16385])
def test_every_size(size: int) -> None:
    opt = make(mxopt.Adam)
    args = arrays(opt, (size,))
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize("shape", [(), (1, 1), (7, 1, 13), (2, 3, 3, 3), (40, 0), (1, 1, 2, 2)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    opt = make(mxopt.AdamW)
    args = arrays(opt, shape)
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@elementwise
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


@elementwise
def test_infinities_and_what_is_no_number_stay_in_their_places(kind: Any) -> None:
    opt = make(kind)
    weight, grad, state = arrays(opt, (77,))
    odd = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 0.0, -0.0, 1e-42, 3e38])
    for given in ((weight.at[:7].set(odd), grad), (weight, grad.at[-7:].set(odd))):
        actual, expected = opt.update(0, *given, state), in_jit(opt, *given, state)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)
    poisoned, _ = opt.update(0, weight, grad.at[3].set(jnp.nan), state)
    others = np.arange(77) != 3
    assert_near(poisoned[others], opt.update(0, weight, grad, state)[0][others])


@pytest.mark.parametrize("shape", [(77,), (33, 31)])
def test_an_update_without_a_rate_leaves_every_bit_of_ftml(shape: Any) -> None:
    opt = mxopt.FTML(learning_rate=0.0, wd=0.1)
    weight, grad, state = arrays(opt, shape)
    for _ in range(3):
        new, state_after = opt.update(0, weight, grad, state)
        assert_same((new, state_after.slots), (weight, state.slots))


# Rules from elsewhere.


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


def repeated(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return jax.lax.fori_loop(0, 3, lambda _, w: w - rates.lr * grad, weight), slots


def in_bfloat16(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad.astype(jnp.bfloat16).astype(jnp.float32), slots


MASK = np.arange(77, dtype=np.float32)


def masked(opt: Any, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
    return weight - rates.lr * grad * MASK, slots


ODD_RULES = [scaled, filled, clipped, of_the_first, last_apart, turned, centered, rolled]
ODD_RULES += [by_place, repeated, in_bfloat16, masked]


class Late(OptimizerDef):
    """Its rule is set after the class is made."""


@pytest.mark.parametrize("how", ["class", "mixin", "late"])
@pytest.mark.parametrize("rule", ODD_RULES, ids=lambda rule: rule.__name__)
def test_a_rule_from_elsewhere_may_do_what_it_likes(
    rule: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"rule": rule, "__module__": __name__}
    if how == "late":
        monkeypatch.setattr(Late, "rule", rule)
        # The rule of a class is none of what compiled functions are told apart by.
        jax.clear_caches()
        kind: Any = Late
    elif how == "mixin":
        kind = type("Mixed", (type("Mixin", (), body), OptimizerDef), {"__module__": __name__})
    else:
        kind = type("Other", (OptimizerDef,), body)
    opt = kind(learning_rate=0.1)
    weight, grad, state = arrays(opt, (77,))
    rates = opt.rates(jnp.float32(0.1), 0.0, 1)
    expected, _ = jax.jit(lambda w, g: rule(opt, rates, w, g, ()))(weight, grad)
    assert_near(opt.update(0, weight, grad, state)[0], expected, 2)
    assert_near(in_jit(opt, weight, grad, state)[0], expected, 2)


@pytest.mark.parametrize("shape", [(), (3,), (77,)])
def test_a_loop_that_would_not_end_is_skipped(shape: Any) -> None:
    class Halving(OptimizerDef):
        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            new = weight - rates.lr * grad
            large = lambda w: ~jnp.all(jnp.abs(w) < 1)  # noqa: E731
            return jax.lax.while_loop(large, lambda w: w / 2, new), slots

    opt, weight = Halving(), jnp.ones(shape)
    state = opt.init(weight)
    new, _ = opt.step(weight, weight * jnp.nan, state, where=jnp.asarray(False))
    assert_same(new, weight)


class Odd(NamedTuple):
    """Slots of which one has a shape of its own."""

    sums: Any
    few: Any
    count: Any


@pytest.mark.parametrize("size", [1, 8, 32])
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("count", [1, 120])
def test_slots_of_any_shape(size: int, read: bool, count: int) -> None:
    class Slotted(OptimizerDef):
        def slots(self, like: Any) -> Odd:
            few = like.array(jnp.arange(float(size)), axes=(None,))
            return Odd(like.zeros(), few, like.full(0, axes=(), dtype=jnp.int32))

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            few = slots.few + 1 if read else slots.few
            sums = slots.sums + grad + (few[0] if read else 1)
            return weight - rates.lr * sums, Odd(sums, few, slots.count + 1)

    opt = Slotted(learning_rate=0.1)
    weight, grad, state = arrays(opt, (160,))
    alone = opt.update(0, weight, grad, state)
    assert_near(alone, in_jit(opt, weight, grad, state), 2)
    params, grads = ({str(n): leaf for n in range(count)} for leaf in (weight, grad))
    new, state = opt.step(params, grads, opt.init(params))
    assert_near((new["0"], state.unpack(params)["0"]), alone, 2)


@pytest.mark.parametrize("count", [1, 600])
def test_a_rule_of_many_operations(count: int) -> None:
    class Long(OptimizerDef):
        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            for _ in range(count):
                weight = weight - rates.lr * grad * weight
            return weight, slots

    opt = Long(learning_rate=1e-3)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), in_jit(opt, *args), max(count, 2))


def test_a_rule_that_gives_the_same_twice() -> None:
    class Twice(mxopt.SGD):
        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            new = weight - grad
            return new, type(slots)(new)

    opt = Twice(momentum=0.9)
    args = arrays(opt, (77,))
    assert_near(opt.update(0, *args), in_jit(opt, *args), 2)
    new, state = opt.step({"w": args[0]}, {"w": args[1]}, opt.init({"w": args[0]}), donate=True)
    assert_same(new["w"], state.unpack(new)["w"].slots.mom)


def test_an_error_of_a_rule_is_raised_as_it_is() -> None:
    class Wrong(mxopt.SGD):
        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            raise KeyError("of the rule")

    opt = Wrong()
    with pytest.raises(KeyError, match="of the rule"):
        opt.update(0, *arrays(opt, (77,)))
    with pytest.raises(KeyError, match="of the rule"):
        opt.step(jnp.ones(77), jnp.ones(77), opt.init(jnp.ones(77)))


@pytest.mark.parametrize("error", [TypeError, ValueError, RuntimeError])
def test_an_error_of_a_rule_is_never_taken_for_another(error: Any) -> None:
    calls = list[Any]()

    class Wrong(mxopt.SGD):
        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            calls.append(rates)
            raise error("of the rule: donate the same, deleted")

    opt = Wrong()
    with pytest.raises(error, match=r"^of the rule: donate the same, deleted"):
        opt.update(0, *arrays(opt, (77,)))
    assert len(calls) == 1


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


def test_from_many_threads() -> None:
    opt = mxopt.Adam()
    args = [arrays(opt, (size,)) for size in range(40, 60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda given: opt.update(0, *given), args))
    for given, result in zip(args, found, strict=True):
        assert_near(result, in_jit(opt, *given), 2)


# Few weights, by `step`.

SHAPES = {"kernel": (16, 31), "bias": (31,), "scale": ()}


def few(dtype: Any = jnp.float32) -> tuple[Any, Any]:
    """Weights and gradients."""
    draw = np.random.default_rng(0)
    params, grads = (
        {name: jnp.asarray(draw.normal(size=SHAPES[name]), dtype) for name in SHAPES}
        for _ in range(2)
    )
    return params, grads


@pytest.mark.parametrize("where", [None, False, True])
@pytest.mark.parametrize("donate", [False, True])
@elementwise
def test_few_weights_are_updated_as_in_a_callers_program(
    kind: Any, donate: bool, where: Any
) -> None:
    opt = make(kind, wd_mult={"bias": 0.0}, lr_mult={"scale": 0.5})
    params, grads = few()
    ok = None if where is None else jnp.asarray(where)
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
        params, grads = few(jnp.dtype(dtype))
        state = opt.init(params)
        expected = jax.jit(opt.step)(params, grads, state)
        assert_near(opt.step(params, grads, state, donate=True), expected, 2)


def test_few_weights_of_which_one_has_rows() -> None:
    opt = make(mxopt.Adam, lazy_update=True)
    params, grads = few()
    grads["kernel"] = mxopt.RowSparse(jnp.asarray([3]), jnp.ones((1, 31)), (16, 31))
    state = opt.init(params)
    expected = jax.jit(opt.step)(params, grads, state)
    assert_near(opt.step(params, grads, state, donate=True), expected, 2)


def test_few_weights_in_a_trainer() -> None:
    params, grads = few()
    trainer = mxopt.Trainer(params, "adam", {"wd": 0.1})
    opt = mxopt.Adam(wd=0.1)
    state = opt.init(params)
    for _ in range(3):
        trainer.step(grads, batch_size=1)
        params, state = jax.jit(opt.step)(params, grads, state)
    assert_near(trainer.params, params, 2)


def test_few_weights_under_transformations() -> None:
    opt = mxopt.Adam()
    params, grads = few()
    state = opt.init(params)

    def moved(rate: Any) -> Any:
        new, _ = opt.replace(learning_rate=rate).step(params, grads, state)
        return sum(leaf.sum() for leaf in new.values())

    slope = jax.grad(moved)(0.1)
    assert_near(slope, (moved(jnp.float32(1.1)) - moved(jnp.float32(0.1))), 200)
    mapped = jax.vmap(moved)(jnp.asarray([0.1, 0.2]))
    assert_near(mapped, jnp.stack([moved(jnp.float32(0.1)), moved(jnp.float32(0.2))]), 20)
