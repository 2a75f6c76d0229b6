"""The guards against NaN and infinity, and norms at both ends of the range of numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxmxopt as mxopt
from jaxmxopt.amp import all_finite, clip_global_norm

DTYPES = ["float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e5m2", "complex64"]
SIZES = sorted({max(2**k + d, 1) for k in range(0, 21, 2) for d in (-1, 0, 1)} | {4095, 4096})
BAD = [np.nan, np.inf, -np.inf]


def poisoned(size: int, dtype: str, bad: list[float], seed: int) -> jax.Array:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=size).astype(np.float32)
    values[draw.permutation(size)[: len(bad)]] = bad[:size]
    return jnp.asarray(values, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_all_finite_finds_one_bad_element(size: int, dtype: str) -> None:
    for number, bad in enumerate(BAD):
        if dtype == "float8_e4m3fn" and np.isinf(bad):
            continue  # The type has no infinity.
        array = poisoned(size, dtype, [bad], seed=size + number)
        assert not all_finite({"w": array})
        assert not jax.jit(all_finite)([jnp.ones(3), array])
    assert all_finite(poisoned(size, dtype, [], seed=size))


@pytest.mark.parametrize("size", [4095, 4096, 4097, 2**17])
def test_all_finite_finds_nan_and_infinity_together(size: int) -> None:
    for bad in ([np.nan, np.inf], [np.inf, np.nan], [np.inf, -np.inf]):
        assert not all_finite(poisoned(size, "float32", bad, seed=size))


def test_all_finite_takes_the_largest_numbers() -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        assert all_finite(jnp.full(5000, jnp.finfo(dtype).max, dtype))


def test_all_finite_of_double_precision() -> None:
    with jax.enable_x64(True):
        for size in (4095, 4096, 70000):
            assert all_finite(jnp.full(size, 1e300))
            assert not all_finite(jnp.ones(size).at[size // 2].set(jnp.nan))


@pytest.mark.parametrize("bad", BAD)
def test_all_finite_of_rows(bad: float) -> None:
    values = jnp.ones((512, 16)).at[300, 7].set(bad)
    rows = mxopt.RowSparse(jnp.arange(512), values, (10_000, 16))
    assert not all_finite({"table": rows})
    assert not jax.jit(all_finite)({"table": rows})
    # A row out of range is of no weight.
    indices = jnp.arange(512).at[300].set(10_000)
    assert jax.jit(lambda i: all_finite(mxopt.RowSparse(i, values, (10_000, 16))))(indices)


@pytest.mark.parametrize("bad", BAD)
def test_all_finite_of_what_lies_on_many_devices(bad: float) -> None:
    mesh = Mesh(np.array(jax.devices()), ("x",))
    array = jax.device_put(
        poisoned(2**16, "float32", [bad], seed=3), NamedSharding(mesh, PartitionSpec("x"))
    )
    assert not all_finite({"w": array})
    assert not jax.jit(all_finite)({"w": array})


@pytest.mark.parametrize("size", [4095, 4096, 2**16])
@pytest.mark.parametrize("bad", BAD)
def test_no_step_lets_a_bad_gradient_into_weights(size: int, bad: float) -> None:
    params, grads = {"w": jnp.ones(size)}, {"w": poisoned(size, "float32", [bad], seed=size)}
    opt = mxopt.Adam()
    new, state = opt.step(params, grads, opt.init(params), where=all_finite(grads))
    assert jnp.array_equal(new["w"], params["w"])
    assert state.num_update == 0
    trainer = mxopt.Trainer(params, "adam", loss_scaler=mxopt.amp.DynamicLossScaler())
    new = trainer.step(grads, batch_size=1)
    assert jnp.array_equal(new["w"], params["w"])
    clipping = mxopt.ClipGlobalNorm(mxopt.SGD(learning_rate=1.0), max_norm=1.0)
    _, norm = clip_global_norm(grads, 1.0)
    assert not jnp.isfinite(norm)
    new, _ = clipping.step(params, grads, clipping.init(params), where=jnp.isfinite(norm))
    assert jnp.array_equal(new["w"], params["w"])


@pytest.mark.parametrize("size", [3, 4096, 2**17])
@pytest.mark.parametrize("name", ["Adam", "RMSProp", "Adamax", "LAMB", "SGD"])
def test_clipping_keeps_nan(name: str, size: int) -> None:
    opt = getattr(mxopt, name)(clip_gradient=1.0)
    weight = jnp.ones(size)
    new, _ = opt.step(weight, weight.at[size // 2].set(jnp.nan), opt.init(weight))
    assert jnp.isnan(new[size // 2])


def norms_of_extremes() -> list[tuple[list[float], float]]:
    return [
        ([3e38, 3e38, 3e38], 1.0),
        ([3e38, -1e30, 0.0], 1e-3),
        ([1e-25, 1e-25], 1e-26),
        ([3e-30, 4e-30], 1e-31),
        ([1e25, 1e-25], 1.0),
        ([2e19] * 5, 7.0),
    ]


@pytest.mark.parametrize(("values", "limit"), norms_of_extremes())
@pytest.mark.parametrize("copies", [1, 3000])
def test_norms_at_both_ends(values: list[float], limit: float, copies: int) -> None:
    exact = np.asarray(np.float32(values), np.float64)
    full = np.sqrt(np.sum(np.square(np.repeat(exact, copies))))
    given = {"a": jnp.repeat(jnp.float32(exact[:1]), copies)}
    given["b"] = jnp.repeat(jnp.float32(exact[1:]), copies)
    clipped, norm = jax.jit(clip_global_norm)(given, limit)
    if full < np.finfo(np.float32).max:
        np.testing.assert_allclose(norm, full, rtol=2e-6)
    # MXNet adds 1e-8 to the norm.
    expected = exact[0] * min(1.0, limit / (full + 1e-8))
    np.testing.assert_allclose(clipped["a"][0], expected, rtol=2e-6, atol=1e-37)


def test_the_norm_is_of_gradients_after_rescaling() -> None:
    for power in (100, -100, 120):
        opt = mxopt.ClipGlobalNorm(
            mxopt.SGD(learning_rate=1.0, rescale_grad=2.0**-power), max_norm=1.0
        )
        weight = jnp.zeros(2)
        new, _ = opt.step(weight, jnp.array([3.0, 4.0]) * 2.0**power, opt.init(weight))
        np.testing.assert_allclose(new, [-0.6, -0.8], rtol=1e-6)
