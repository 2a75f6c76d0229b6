"""What the algorithms and wrappers that MXNet has no class for promise beyond the catalogue."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from samples import (
    ALGORITHMS,
    OF_MXNET,
    assert_near,
    assert_same,
    double_precision,
    make,
    tree,
)

import jaxmxopt as mxopt
from jaxmxopt import interop
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._stateful.mxnet_optimizers import algorithm_of

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def trained(opt: Any, steps: int = 3, dtype: Any = np.float32) -> tuple[Any, Any]:
    params = tree(0, dtype)
    state = opt.init(params)
    for seed in range(steps):
        params, state = opt.step(params, tree(1 + seed, dtype), state)
    return params, state


# Names.


@pytest.mark.parametrize("kind", [kind for kind in ALGORITHMS if kind not in OF_MXNET])
def test_create_knows_the_name_and_files_of_mxnet_do_not(kind: Any) -> None:
    made = mxopt.create(kind.__name__, learning_rate=0.25)
    assert made.definition == kind(learning_rate=0.25)
    assert algorithm_of(MXNetRecord("mxnet.optimizer.optimizer", kind.__name__, {})) is None


# Schedule-free.

FREE = mxopt.ScheduleFreeSGD(learning_rate=0.5, momentum=0.75, weight_lr_power=0.0)


def mean_of_steps(steps: int = 3) -> dict[str, np.ndarray]:
    """What FREE's average is: the mean of the weights that plain gradient descent has gone by."""
    z = {name: np.asarray(w, np.float64) for name, w in tree(0).items()}
    total = {name: 0 * w for name, w in z.items()}
    for seed in range(steps):
        for name, grad in tree(1 + seed).items():
            z[name] = z[name] - 0.5 * np.asarray(grad, np.float64)
            total[name] = total[name] + z[name] / steps
    return total


def assert_mean(read: Any, names: str = "abc", rtol: float = 1e-5) -> None:
    for name in names:
        np.testing.assert_allclose(
            np.asarray(read[name], np.float64), mean_of_steps()[name], rtol=rtol, atol=rtol
        )


@pytest.mark.parametrize(
    "opt",
    [
        FREE,
        mxopt.Groups({"*": FREE}),
        mxopt.Accumulate(mxopt.ClipGlobalNorm(FREE, max_norm=1e6), every=1),
        mxopt.Groups({"a": mxopt.Accumulate(FREE, every=1), "*": FREE}),
    ],
    ids=["alone", "group", "wrapped", "wrapped in a group"],
)
def test_averages_of_schedule_free_are_read_anywhere(opt: Any) -> None:
    assert_mean(mxopt.averaged(*trained(opt)))


def test_weights_of_other_groups_are_those_given() -> None:
    params, state = trained(mxopt.Groups({"a": FREE, "b": None, "*": mxopt.SGD()}))
    read = mxopt.averaged(params, state)
    assert_mean(read, "a")
    assert_same({name: read[name] for name in "bc"}, {name: params[name] for name in "bc"})


def test_of_two_averages_the_outer_counts() -> None:
    params, state = trained(mxopt.EMA(FREE, decay=0.0))
    assert_near(mxopt.averaged(params, state), params)


def test_averages_before_the_first_step_are_the_weights() -> None:
    assert_same(mxopt.averaged(tree(), FREE.init(tree())), tree())


def test_averages_are_of_masters_in_the_dtype_of_the_weights() -> None:
    params, state = trained(FREE.replace(multi_precision=True), dtype=jnp.bfloat16)
    read = mxopt.averaged(params, state)
    assert read["a"].dtype == jnp.bfloat16
    unpacked = state.unpack(params)["a"]
    exact = unpacked.slots.averaged(unpacked.master)
    assert_same(read["a"], exact.astype(jnp.bfloat16))


def test_averages_of_weights_that_share_arrays(shared_arrays: None) -> None:
    assert_mean(mxopt.averaged(*trained(FREE)))


@pytest.mark.parametrize("given", [FREE, mxopt.Groups({"*": FREE})], ids=["alone", "group"])
def test_averages_are_read_from_a_trainer(given: Any) -> None:
    trainer = mxopt.Trainer(tree(), given)
    for seed in range(3):
        trainer.step(tree(1 + seed), 1)
    assert_mean(mxopt.averaged(trainer.params, trainer.states))
    assert_mean({"a": mxopt.averaged(trainer.params["a"], trainer.states["a"])}, "a")


def test_averages_of_other_weights_are_refused() -> None:
    params, state = trained(FREE)
    with pytest.raises(ValueError, match=r"^averaged: params must be what state is of, got shape"):
        mxopt.averaged({**params, "a": jnp.ones(3)}, state)
    with pytest.raises(ValueError, match=r"got no average at 'd'"):
        mxopt.averaged({**params, "d": jnp.ones(3)}, state)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_a_momentum_that_loses_the_average_is_refused(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"momentum must be in \(0, 1\)"):
        mxopt.ScheduleFreeSGD(momentum=momentum)


# Numbers of updates that cancel in float32.


@pytest.mark.parametrize("beta2", [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999])
def test_radams_numbers_are_accurate_when_traced(beta2: float) -> None:
    beta2, counts = float(np.float32(beta2)), (1, 5, 6, 10, 1000, 10**5, 10**6, 10**7)
    exact = [mxopt.RAdam(beta1=0.875, beta2=beta2).rates(0.125, 0.0, t).rectified for t in counts]
    opt = mxopt.RAdam(beta1=jnp.float32(0.875), beta2=jnp.float32(beta2))
    rates = jax.vmap(lambda t: opt.rates(jnp.float32(0.125), 0.0, t))(jnp.int32(counts))
    np.testing.assert_allclose(rates.rectified, exact, rtol=4e-6)


def test_ademamixs_slow_mean_is_accurate_when_traced() -> None:
    given = {"beta1": 0.875, "beta3": float(np.float32(0.9999)), "warmup": 64.0}
    for t in (1, 30, 63, 64, 100):
        on_host = mxopt.AdEMAMix(**given).rates(0.125, 0.0, t)
        rounded = {name: jnp.float32(value) for name, value in given.items()}
        opt = mxopt.AdEMAMix(beta2=jnp.float32(0.5), alpha=jnp.float32(5), **rounded)
        traced = opt.rates(jnp.float32(0.125), 0.0, jnp.int32(t))
        np.testing.assert_allclose(traced.fresh, on_host.fresh, rtol=1e-6)
        np.testing.assert_allclose(traced.alpha, on_host.alpha, rtol=1e-6)


# Cautious.


def in_full(params: Any, state: Any) -> dict[str, Any]:
    """The masters, or the weights where there are none."""
    states = state.unpack(params)
    return {k: w if states[k].master is None else states[k].master for k, w in params.items()}


def cautioned(before: Any, after: Any, grad: Any) -> np.ndarray:
    w, new, g = (np.asarray(x, np.float64) for x in (before, after, grad))
    along = (new - w) * g < 0
    return w + (new - w) * along * (along.size / (along.sum() + 1))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "masters"])
def test_cautious_leaves_out_what_goes_against_the_gradient(dtype: Any) -> None:
    inside = make(mxopt.Adam, multi_precision=True)
    params, state = trained(inside, dtype=dtype)
    grads = tree(9, dtype)
    plain = inside.step(params, grads, state)
    ours = mxopt.Cautious(inside).step(params, grads, state)
    assert_same(ours[1].slots, plain[1].slots)
    before, after, cautious = in_full(params, state), in_full(*plain), in_full(*ours)
    for name in params:
        wanted = cautioned(before[name], after[name], grads[name])
        np.testing.assert_allclose(cautious[name], wanted, rtol=1e-5, atol=1e-6)


def test_cautious_goes_around_groups_and_frozen_weights() -> None:
    lion = mxopt.Lion(learning_rate=0.1)
    groups = mxopt.Groups({"a": lion, "b": None, "*": make(mxopt.Adam)})
    params, _ = trained(mxopt.Cautious(groups))
    alone, _ = trained(mxopt.Groups({"a": mxopt.Cautious(lion), "*": None}))
    assert_near(params["a"], alone["a"])
    assert_same(params["b"], tree()["b"])


def test_cautious_in_a_trainer_is_cautious_in_a_step() -> None:
    opt = mxopt.Cautious(make(mxopt.Lion))
    trainer = mxopt.Trainer(tree(), opt)
    for seed in range(3):
        trainer.step(tree(1 + seed), 1)
    # A Trainer divides by the batch size in place of `rescale_grad`.
    assert_near(trainer.params, trained(opt)[0], 4)


@pytest.mark.parametrize("kind", [mxopt.ScheduleFreeSGD, mxopt.ScheduleFreeAdamW])
def test_an_average_of_whole_steps_is_no_average_of_cautious_ones(kind: Any) -> None:
    with pytest.raises(TypeError, match=rf"^Cautious: .* no average .* got {kind.__name__}"):
        mxopt.Cautious(kind())


def test_nan_shows_through_cautious() -> None:
    opt, weight = mxopt.Cautious(mxopt.Adam()), jnp.ones(2)
    weight, _ = opt.step(weight, jnp.array([1.0, jnp.nan]), opt.init(weight))
    assert jnp.isnan(weight[1])


# Large, small and empty weights.


@pytest.mark.parametrize("kind", [mxopt.Adafactor, mxopt.SOAP, mxopt.Muon, mxopt.Adam])
def test_weights_may_have_more_elements_than_int32_counts(kind: Any) -> None:
    weight = jax.ShapeDtypeStruct((80, 8192, 8192), jnp.float32)
    for opt in (kind(), mxopt.Cautious(kind())):
        new, _ = jax.eval_shape(opt.step, weight, weight, jax.eval_shape(opt.init, weight))
        assert new.shape == weight.shape


def test_an_empty_matrix_leaves_no_nan() -> None:
    params = {"empty": jnp.zeros((0, 4)), "tall": jnp.zeros((4, 0)), "w": jnp.ones((2, 2))}
    for kind in (mxopt.Adafactor, mxopt.Muon, mxopt.SOAP, mxopt.Lion):
        opt = make(kind)
        assert mxopt.amp.all_finite(opt.step(params, params, opt.init(params))), kind


def test_a_large_gradient_of_a_matrix_is_a_step_of_adafactor() -> None:
    """Mean squares of rows and columns are in range where their product is not."""
    opt, weight = mxopt.Adafactor(learning_rate=0.1), jnp.ones((2, 2))
    for size in (1e9, 1e10, 1e15):
        new, _ = opt.step(weight, jnp.full((2, 2), size), opt.init(weight))
        np.testing.assert_allclose(new, 0.9, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:AdEMAMix. state of half-precision weights")
def test_a_slow_mean_goes_on_in_half_precision() -> None:
    def mean_after(dtype: Any) -> float:
        opt, weight = mxopt.AdEMAMix(learning_rate=0.0), jnp.ones((), dtype)

        def step(state: Any, _: None) -> Any:
            return opt.update(0, weight, jnp.ones((), dtype), state)[1], None

        state = jax.lax.scan(step, opt.create_state(0, weight), None, length=1000)[0]
        return float(state.slots.slow)

    np.testing.assert_allclose(mean_after(jnp.bfloat16), mean_after(np.float32), rtol=1e-5)


# Prodigy.


def test_a_clipped_gradient_is_clipped_in_the_estimate_too() -> None:
    def estimate(clip: float | None, by_hand: float) -> float:
        opt, params = mxopt.Prodigy(mxopt.AdamW(learning_rate=1.0, clip_gradient=clip)), jnp.ones(4)
        state = opt.init(params)
        for step in range(12):
            grad = jnp.full(4, 1e6 if step == 5 else 0.5)
            params, state = opt.step(params, jnp.clip(grad, -by_hand, by_hand), state)
        return float(state.slots.d)

    np.testing.assert_allclose(estimate(1.0, np.inf), estimate(None, 1.0), rtol=1e-6)


def test_the_first_estimate_may_jump_with_64_bit_types() -> None:
    def estimate() -> float:
        opt = mxopt.Prodigy(mxopt.AdamW(learning_rate=1.0), growth_rate=1.02)
        params = jnp.ones(4, np.float32)
        state = opt.init(params)
        for _ in range(8):
            params, state = opt.step(params, jnp.full(4, 0.5, np.float32), state)
        return float(state.slots.d)

    narrow = estimate()
    with double_precision():
        np.testing.assert_allclose(estimate(), narrow, rtol=1e-5)


@pytest.mark.parametrize("wrapper", [mxopt.Cautious, mxopt.Prodigy])
def test_transformations_of_optax_are_refused(wrapper: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{wrapper.__name__}: definition must be"):
        wrapper(interop.from_optax(optax.sgd(0.1)))


# Prodigy.

PRODIGY = mxopt.Prodigy(mxopt.AdamW(learning_rate=1.0, wd=0.01, correct_bias=False), d0=0.05)


def test_prodigy_needs_an_algorithm_and_beta3() -> None:
    with pytest.raises(TypeError, match=r"other wrappers go around Prodigy"):
        mxopt.Prodigy(mxopt.EMA(mxopt.AdamW()))
    with pytest.raises(ValueError, match=r"^Prodigy: beta3 must be given, as SGD has no"):
        mxopt.Prodigy(mxopt.SGD())


def test_prodigy_counts_all_weights_and_ignores_frozen_ones() -> None:
    state = trained(PRODIGY)[1]
    assert state.slots.d.shape == ()
    assert float(state.slots.d) > 0.05
    some, grouped = trained(mxopt.Groups({"c": None, "*": PRODIGY}))
    d = grouped.slots.states[1].slots.d
    assert float(d) != float(state.slots.d)
    pair = {name: tree()[name] for name in "ab"}
    alone = PRODIGY.init(pair)
    for seed in range(3):
        pair, alone = PRODIGY.step(pair, {name: tree(1 + seed)[name] for name in "ab"}, alone)
    assert_near((some["a"], d), (pair["a"], alone.slots.d), 4)


def test_prodigy_does_not_move_without_gradients() -> None:
    zeros = jax.tree.map(jnp.zeros_like, tree())
    opt = PRODIGY.replace(wd=0.0)
    params, state = opt.step(tree(), zeros, opt.init(tree()))
    assert_same(params, tree())
    assert float(state.slots.d) == np.float32(0.05)


def test_prodigy_in_a_trainer_is_prodigy_in_a_step() -> None:
    trainer = mxopt.Trainer(tree(), mxopt.EMA(PRODIGY, decay=0.5))
    for seed in range(3):
        trainer.step(tree(1 + seed), 1)
    params, state = trained(mxopt.EMA(PRODIGY, decay=0.5))
    assert_near(trainer.params, params, 16)
    assert_near(mxopt.averaged(trainer.params, trainer.states), mxopt.averaged(params, state), 16)


def test_prodigy_follows_a_schedule_and_clips_what_is_given() -> None:
    inside = mxopt.AdamW(correct_bias=False)
    halving = inside.replace(lr_scheduler=lambda t: 0.5 ** (t - 1), clip_gradient=0.5)
    scheduled, opt = mxopt.Prodigy(halving, d0=0.05), mxopt.Prodigy(inside, d0=0.05)
    params, state = tree(), opt.init(tree())
    expected = params, state
    for step in range(3):
        # What is clipped already, so that the estimate is the same.
        grads = jax.tree.map(lambda g: jnp.clip(g, -0.5, 0.5), tree(1 + step))
        params, state = scheduled.step(params, grads, state)
        expected = opt.replace(learning_rate=0.5**step).step(expected[0], grads, expected[1])
    assert_near((params, state), expected, 4)
