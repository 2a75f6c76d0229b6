"""Loss scaling, and guards against gradients that are not finite."""

import itertools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import assert_same, tree

import jaxmxopt as mxopt
from jaxmxopt.amp import (
    DynamicLossScaler,
    LossScale,
    all_finite,
    clip_global_norm,
    first_nonfinite,
)

# Recorded from mxnet.contrib.amp.loss_scaler.LossScaler of MXNet 1.9.1: runs of (steps, finite),
# then the steps after which the scale is another one, and that scale.
Runs = list[tuple[int, bool]]
RECORDED: dict[str, tuple[Runs, list[tuple[int, float]]]] = {
    "never": (
        [(18001, True)],
        [(0, 65536.0), (2001, 131072.0), (4001, 262144.0), (6001, 524288.0), (8001, 1048576.0),
         (10001, 2097152.0), (12001, 4194304.0), (14001, 8388608.0), (16001, 16777216.0)],
    ),
    "at once": (
        [(3, False), (5, True)],
        [(0, 65536.0), (2, 32768.0), (3, 16384.0), (4, 8192.0)],
    ),
    "one": (
        [(10, True), (1, False), (2005, True)],
        [(0, 65536.0), (12, 32768.0), (2012, 65536.0)],
    ),
    "just before growth": (
        [(1999, True), (1, False), (2001, True), (1, False), (5, True)],
        [(0, 65536.0), (2001, 32768.0), (4001, 65536.0), (4003, 32768.0)],
    ),
    "at growth": (
        [(2000, True), (1, False), (2002, True)],
        [(0, 65536.0), (2001, 131072.0), (2002, 65536.0), (4002, 131072.0)],
    ),
    "after growth": (
        [(2001, True), (1, False), (1, True), (1, False), (2003, True)],
        [(0, 65536.0), (2001, 131072.0), (2003, 65536.0), (2005, 32768.0), (4005, 65536.0)],
    ),
    "alternating": (
        [(1, True), (1, False)] * 6 + [(2010, True)],
        [(0, 65536.0), (3, 32768.0), (5, 16384.0), (7, 8192.0), (9, 4096.0), (11, 2048.0),
         (13, 1024.0), (2013, 2048.0)],
    ),
    "always": (
        [(30, False), (1, True)],
        [(0, 65536.0), *((step, 2.0 ** (17 - step)) for step in range(2, 32))],
    ),
    "growth after fall": (
        [(8, False), (4100, True), (2, False), (2100, True)],
        [(0, 65536.0), (2, 32768.0), (3, 16384.0), (4, 8192.0), (5, 4096.0), (6, 2048.0),
         (7, 1024.0), (8, 512.0), (9, 256.0), (2009, 512.0), (4009, 1024.0), (4110, 512.0),
         (4111, 256.0), (6111, 512.0)],
    ),
}  # fmt: skip


def scales(scaler: DynamicLossScaler, runs: Runs) -> list[float]:
    """The scale before each step and after the last."""
    pattern = jnp.asarray([finite for count, finite in runs for _ in range(count)])

    def step(state: LossScale, finite: Any) -> tuple[LossScale, Any]:
        return scaler.update(state, finite), state.loss_scale

    last, seen = jax.jit(lambda: jax.lax.scan(step, scaler.init(), pattern))()
    return [*seen.tolist(), float(last.loss_scale)]


@pytest.mark.parametrize("case", RECORDED)
def test_the_scales_are_those_of_mxnet(case: str) -> None:
    runs, expected = RECORDED[case]
    seen = [0.0, *scales(DynamicLossScaler(), runs)]
    changes = [
        (step, new) for step, (old, new) in enumerate(itertools.pairwise(seen)) if old != new
    ]
    assert changes == expected


def test_the_scale_stays_within_bounds() -> None:
    scaler = DynamicLossScaler(
        init_scale=8.0, scale_factor=4.0, scale_window=2, max_scale=64.0, min_scale=0.5
    )
    assert scales(scaler, [(8, True)]) == [8, 8, 8, 32, 32, 64, 64, 64, 64]
    assert scales(scaler, [(5, False)]) == [8, 8, 2, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_scale": 0.0}, r"init_scale must be in \(0, inf\), got 0.0"),
        ({"scale_factor": 1.0}, r"scale_factor must be above 1, got 1.0"),
        ({"scale_window": 0}, r"scale_window must be at least 1, got 0"),
        ({"max_scale": 8.0}, r"init_scale must be in \[min_scale, max_scale\] .* got 65536.0"),
        ({"min_scale": 1e9}, r"init_scale must be in \[min_scale, max_scale\]"),
        ({"scale_windw": 3}, r"did you mean 'scale_window'"),
    ],
)
def test_wrong_constants_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        DynamicLossScaler(**arguments)


def test_other_constants_do_not_compile_anew(compilations: Any) -> None:
    step = jax.jit(lambda scaler, state, finite: scaler.update(state, finite))
    state = DynamicLossScaler().init()
    step(DynamicLossScaler(), state, True)
    with compilations as seen:
        step(DynamicLossScaler(scale_factor=3.0, max_scale=1e6), state, False)
    assert seen.count == 0


def test_scaling_and_back_is_exact_in_half_precision() -> None:
    scaler, state = DynamicLossScaler(), DynamicLossScaler().init()
    assert scaler.scale(jnp.float16(3.0), state).dtype == jnp.float32
    assert scaler.scale([jnp.float32(3.0)], state) == [3.0 * 2**16]
    # Too small for float16 by itself.
    grads = {
        "half": jnp.asarray([2.0**-30, 1.0]) * 2**16,
        "rows": mxopt.RowSparse([1], jnp.full((1, 2), 2.0**16, jnp.bfloat16), (3, 2)),
        "count": jnp.asarray(7),
    }
    grads["half"] = grads["half"].astype(jnp.float16)
    unscaled = scaler.unscale(grads, state)
    assert unscaled["half"].dtype == unscaled["rows"].dtype == jnp.float32
    assert unscaled["half"].tolist() == [2.0**-30, np.inf]
    assert unscaled["rows"].values.tolist() == [[1.0, 1.0]]
    assert unscaled["rows"].indices.tolist() == [1]
    assert unscaled["count"] == 7


def test_double_precision_stays(x64: None) -> None:
    scaler = DynamicLossScaler()
    assert scaler.unscale(jnp.ones(2, jnp.float64), scaler.init()).dtype == jnp.float64
    clipped, norm = clip_global_norm({"a": jnp.ones(2, jnp.float64), "b": jnp.ones(2, "f4")}, 1.0)
    assert (clipped["a"].dtype, clipped["b"].dtype, norm.dtype) == ("f8", "f4", "f8")
    assert norm == 2.0


# Guards. ----------------------------------------------------------------------------------

BAD = [np.nan, np.inf, -np.inf]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float8_e5m2", "complex64"])
@pytest.mark.parametrize("bad", BAD)
def test_all_finite(dtype: str, bad: float) -> None:
    good = {"a": jnp.ones((2, 3), dtype), "n": jnp.arange(3), "k": jax.random.key(0), "none": None}
    assert bool(all_finite(good))
    assert first_nonfinite(good) is None
    poisoned = {**good, "z": [jnp.ones(2, dtype), jnp.asarray([1.0, bad, 1.0], dtype)]}
    for check in (all_finite, jax.jit(all_finite)):
        assert not check(poisoned)
    found = first_nonfinite(poisoned)
    assert found is not None
    assert found == ("z/1", int(np.isnan(bad)), int(np.isinf(bad)), 3)
    assert str(found).startswith("'z/1' holds ")


def test_all_finite_of_other_things() -> None:
    rows = mxopt.RowSparse([0, 2], jnp.asarray([[1.0], [jnp.nan]]), (4, 1))
    assert not all_finite({"table": rows})
    assert str(first_nonfinite({"table": rows})) == (
        "'table/values' holds 1 NaN and 0 infinities in 2"
    )
    for empty in ({}, None, jnp.zeros((0, 3)), 3):
        assert all_finite(empty)
    assert all_finite([1.0, np.float32(2)])
    assert not all_finite([1.0, float("inf")])
    assert all_finite(jnp.finfo(jnp.float32).max)


def test_the_first_culprit_inside_jit() -> None:
    seen: list[Any] = []

    @jax.jit
    def step(grads: Any) -> Any:
        jax.debug.callback(lambda given: seen.append(str(first_nonfinite(given))), grads)
        with pytest.raises(TypeError, match=r"traced one at 'a'; inside jax\.jit call it through"):
            first_nonfinite(grads)
        return all_finite(grads)

    step({"a": jnp.ones(2), "b": jnp.asarray([jnp.nan])})
    jax.effects_barrier()
    assert seen == ["'b' holds 1 NaN and 0 infinities in 1"]


@pytest.mark.parametrize("bad", BAD)
def test_a_guarded_step_changes_nothing(bad: float) -> None:
    opt = mxopt.Adam()
    params = tree(0)
    state = opt.init(params)
    grads = {**tree(1), "b": tree(1)["b"].at[1, 0].set(bad)}
    assert_same(opt.step(params, grads, state, where=all_finite(grads)), (params, state))
    poisoned, _ = opt.step(params, grads, state)
    assert not all_finite(poisoned)


# Norms. -----------------------------------------------------------------------------------

# Recorded from mxnet.gluon.utils.clip_global_norm of MXNet 1.9.1.
CLIPPED = [
    (
        0.5,
        ([[0.126, -0.132, 0.64], [0.105, -0.536, 0.362]], [1.304, 0.947, -0.704, -1.265]),
        "0x1.2df6d60000000p+1",
        (
            [
                [0.026705153286457062, -0.027976825833320618, 0.13564521074295044],
                [0.02225429378449917, -0.11360286921262741, 0.07672432065010071],
            ],
            [0.2763771414756775, 0.20071253180503845, -0.14920973777770996, -0.2681112587451935],
        ),
    ),
    (
        3.0,
        ([[-0.623, 0.041, -2.325], [-0.219, -1.246, -0.732]], [-0.544, -0.316, 0.412, 1.043]),
        "0x1.8c493a0000000p+1",
        (
            [
                [-0.603685200214386, 0.03972887992858887, -2.252918243408203],
                [-0.21221035718917847, -1.207370400428772, -0.7093058228492737],
            ],
            [-0.5271344184875488, -0.30620309710502625, 0.3992267847061157, 1.0106638669967651],
        ),
    ),
    (
        100.0,
        ([[-0.129, 1.366, -0.665], [0.352, 0.903, 0.094]], [-0.743, -0.922, -0.458, 0.22]),
        "0x1.1c4ce00000000p+1",
        ([[-0.129, 1.366, -0.665], [0.352, 0.903, 0.094]], [-0.743, -0.922, -0.458, 0.22]),
    ),
]


@pytest.mark.parametrize(("max_norm", "given", "norm", "expected"), CLIPPED)
def test_clipping_is_that_of_mxnet(max_norm: float, given: Any, norm: str, expected: Any) -> None:
    clipped, found = clip_global_norm([jnp.asarray(x) for x in given], max_norm)
    np.testing.assert_allclose(found, float.fromhex(norm), rtol=3e-7)
    for a, b in zip(clipped, expected, strict=True):
        np.testing.assert_allclose(a, np.float32(b), rtol=4e-7)


def test_rows_count_once_and_duplicates_add_up() -> None:
    rows = mxopt.RowSparse([2, 0, 2], jnp.asarray([[1.0, 2.0], [0.0, 0.0], [2.0, 2.0]]), (3, 2))
    dense = {"rows": rows.todense(), "w": jnp.asarray([12.0])}
    clipped, norm = clip_global_norm({"rows": rows, "w": dense["w"]}, 1.0)
    assert norm == clip_global_norm(dense, 1.0)[1] == 13.0
    assert isinstance(clipped["rows"], mxopt.RowSparse)
    np.testing.assert_allclose(clipped["rows"].todense(), dense["rows"] / 13, rtol=1e-6)


def test_rows_out_of_range_do_not_count() -> None:
    @jax.jit
    def looked_at(indices: Any) -> Any:
        rows = mxopt.RowSparse(indices, jnp.asarray([[3.0, 4.0], [np.nan, 1.0]]), (3, 2))
        return all_finite({"rows": rows}), clip_global_norm({"rows": rows}, 10.0)[1]

    assert looked_at(jnp.asarray([1, 9])) == (True, 5.0)
    assert not looked_at(jnp.asarray([1, 2]))[0]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_norms_of_half_precision_do_not_overflow(dtype: str) -> None:
    clipped, norm = clip_global_norm([jnp.full(4, 30000.0, dtype)], 1.0)
    np.testing.assert_allclose(norm, 60000.0, rtol=5e-3)
    assert clipped[0].dtype == dtype
    np.testing.assert_allclose(np.float32(clipped[0]), 0.5, rtol=5e-3)


@pytest.mark.parametrize("bad", BAD)
def test_gradients_without_a_norm_are_left_alone(bad: float) -> None:
    given = {"a": jnp.asarray([3.0, bad]), "b": jnp.asarray([4.0])}
    clipped, norm = clip_global_norm(given, 1.0)
    assert_same(clipped, given)
    assert not jnp.isfinite(norm)


def test_clipping_of_nothing_and_to_nothing() -> None:
    assert clip_global_norm({}, 1.0) == ({}, 0.0)
    assert clip_global_norm([jnp.zeros(3)], 1.0)[0][0].tolist() == [0, 0, 0]
    assert clip_global_norm([jnp.ones(3)], 0.0)[0][0].tolist() == [0, 0, 0]
    assert clip_global_norm([jnp.ones(4), jnp.arange(9)], 5)[1] == 2.0
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"max_norm must be 0 or more, got "):
            clip_global_norm([jnp.ones(3)], wrong)


@hypothesis.given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    max_norm=st.floats(1e-3, 1e3),
)
def test_the_norm_is_limited(values: list[float], max_norm: float) -> None:
    given = np.asarray(values, np.float32)
    clipped, norm = clip_global_norm([jnp.asarray(given)], max_norm)
    assert np.linalg.norm(np.asarray(clipped[0], np.float64)) <= max_norm * (1 + 1e-5)
    np.testing.assert_allclose(norm, np.linalg.norm(np.float64(given)), rtol=1e-5, atol=1e-20)
    if norm <= max_norm * (1 - 1e-5):
        np.testing.assert_array_equal(clipped[0], given)


# Training. --------------------------------------------------------------------------------


def test_half_precision_converges_through_overflows() -> None:
    """Regression whose gradients vanish in float16 unless scaled, with infinities thrown in."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(64, 8)).astype(np.float32)
    wanted = draw.normal(size=(8,)).astype(np.float32)
    targets = inputs @ wanted
    opt = mxopt.Adam(learning_rate=0.05, epsilon=1e-16, multi_precision=True)
    scaler = DynamicLossScaler(scale_window=50)

    def loss_of(w: Any, fault: Any) -> Any:
        outputs = (jnp.asarray(inputs, jnp.float16) @ w).astype(jnp.float32)
        return 1e-9 * jnp.mean(jnp.square(outputs * fault - targets))

    @jax.jit
    def step(w: Any, state: Any, scale: LossScale, fault: Any) -> Any:
        grads = jax.grad(lambda w: scaler.scale(loss_of(w, fault), scale))(w)
        grads = scaler.unscale(grads, scale)
        finite = all_finite(grads)
        w, state = opt.step(w, grads, state, where=finite)
        return w, state, scaler.update(scale, finite), finite

    w = jnp.zeros(8, jnp.float16)
    state, scale = opt.init(w), scaler.init()
    faults = np.where(np.arange(400) % 40 == 20, np.inf, 1.0).astype(np.float32)
    good = 0
    for fault in faults:
        w, state, scale, finite = step(w, state, scale, fault)
        good += int(finite)
    assert good == state.num_update == 390
    np.testing.assert_allclose(w, wanted, atol=3e-2)
    # Without scaling all gradients round to zero.
    first = jax.grad(loss_of)(jnp.zeros(8, jnp.float16), np.float32(1))
    assert not first.any()


def trainer_on_regression(fault_every: int | None = None) -> tuple[mxopt.Trainer, list[float]]:
    """Trains in float16 by a Trainer; returns it and the scales that its steps had."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(64, 8)).astype(np.float32)
    targets = inputs @ draw.normal(size=(8,)).astype(np.float32)

    @jax.jit
    def grads_of(params: Any, scale: Any, fault: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs = (jnp.asarray(inputs, jnp.float16) @ params["w"]).astype(jnp.float32)
            return scale * 1e-9 * jnp.sum(jnp.square(outputs * fault - targets))

        return jax.grad(loss)(params)

    trainer = mxopt.Trainer(
        {"w": jnp.zeros(8, jnp.float16)},
        mxopt.Adam(learning_rate=0.05, epsilon=1e-16, multi_precision=True),
        loss_scaler=DynamicLossScaler(scale_window=50),
    )
    scales: list[float] = []
    for number in range(120):
        scales.append(float(trainer.loss_scale))
        fault = np.inf if fault_every and number % fault_every == 20 else 1.0
        grads = grads_of(trainer.params, trainer.loss_scale, np.float32(fault))
        trainer.step(grads, batch_size=64)
    return trainer, scales


def test_a_trainer_skips_overflows() -> None:
    trainer, scales = trainer_on_regression(fault_every=40)
    assert trainer.optimizer.num_update == 117
    expected = [(20, True), (1, False), (39, True), (1, False), (39, True), (1, False), (19, True)]
    assert scales == [float(x) for x in scaled_by(DynamicLossScaler(scale_window=50), expected)]
    assert np.isfinite(np.float32(trainer.params["w"])).all()
    # The same without the faulty steps, but for the scale.
    assert not jnp.any(trainer.params["w"] == 0)


def scaled_by(scaler: DynamicLossScaler, runs: Runs) -> list[float]:
    return scales(scaler, runs)[:-1]


def test_a_trainer_keeps_its_scale_in_its_file(tmp_path: Any) -> None:
    trainer, _ = trainer_on_regression(fault_every=40)
    trainer.save_states(tmp_path / "x.states")
    fresh, _ = trainer_on_regression()
    assert fresh.loss_scale != trainer.loss_scale
    fresh.load_states(tmp_path / "x.states")
    assert_same(fresh._scaling.state, trainer._scaling.state)
    plain = mxopt.Trainer(trainer.params, mxopt.Adam(multi_precision=True))
    with pytest.warns(UserWarning, match="loss scale is left out, as there is no loss_scaler"):
        plain.load_states(tmp_path / "x.states")
    assert plain.loss_scale == 1.0
    # And from a file without one.
    plain.save_states(tmp_path / "y.states")
    fresh.load_states(tmp_path / "y.states")
    assert fresh.loss_scale == trainer.loss_scale


def test_a_trainer_takes_loss_scalers_alone() -> None:
    with pytest.raises(TypeError, match="Trainer: loss_scaler must be a DynamicLossScaler, got 8"):
        mxopt.Trainer({"w": jnp.ones(2)}, "sgd", loss_scaler=8)  # pyright: ignore[reportArgumentType]


def test_the_norm_of_gradients_whose_squares_overflow():
    grads = {"a": jnp.array([3e20, 0.0]), "b": jnp.array([4e20])}
    clipped, norm = clip_global_norm(grads, 1.0)
    np.testing.assert_allclose(norm, 5e20, rtol=1e-6)
    np.testing.assert_allclose(clipped["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [0.8], rtol=1e-6)
    for bad in (np.inf, np.nan):
        _, norm = clip_global_norm(grads | {"c": jnp.array(bad)}, 1.0)
        assert_same(norm, jnp.float32(bad))


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_scale": 1e-50},
        {"min_scale": 2.0**-127},
        {"max_scale": 1e39},
        {"max_scale": 2.0**127},
        {"scale_window": 2**31},
        {"scale_factor": 1 + 1e-9},
    ],
)
def test_constants_that_float32_cannot_work_with_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        DynamicLossScaler(**arguments)


@pytest.mark.parametrize("finite", [1.0, 1, "yes", jnp.ones(()), np.int32(1), None])
def test_finite_must_be_a_bool(finite):
    scaler = DynamicLossScaler()
    with pytest.raises(TypeError, match="update: finite must be a scalar bool"):
        scaler.update(scaler.init(), finite)
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        scaler.update(scaler.init(), jnp.ones(2, bool))


@pytest.mark.parametrize("how", ["of the scale", "of rescale_grad"])
def test_a_trainer_asks_what_will_be_applied(how):
    """Finite gradients that overflow when they are divided by a small scale are not applied."""
    small = 2.0**-20
    scaler = DynamicLossScaler(init_scale=small if how == "of the scale" else 1.0)
    opt = mxopt.SGD(learning_rate=1.0, rescale_grad=1.0 if how == "of the scale" else 1 / small)
    trainer = mxopt.Trainer({"w": jnp.ones(2)}, opt, loss_scaler=scaler)
    assert trainer.step({"w": jnp.full(2, 1e35)}, 1)["w"].tolist() == [1.0, 1.0]
    assert trainer.optimizer.num_update == 0


def test_a_skipped_step_refuses_wrong_shapes():
    scaler = DynamicLossScaler()
    trainer = mxopt.Trainer({"w": jnp.ones(2)}, "sgd", loss_scaler=scaler)
    for values in (jnp.full(3, jnp.inf), jnp.ones(3)):
        with pytest.raises(ValueError, match=r"step\('w'\): grad has shape \(3,\)"):
            trainer.step({"w": values}, 1)
    assert trainer._scaling.state == scaler.init()
