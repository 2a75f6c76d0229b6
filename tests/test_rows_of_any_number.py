"""Batches of any number of rows: a few programs serve them all, with the same numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmxopt as mxopt

HEIGHT = 6000


def batches(shape, count, most, seed=0):
    """Yield gradients of 1 to `most` rows, every other one unsorted and with duplicates."""
    random = np.random.default_rng(seed)
    for number in range(count):
        rows = int(random.integers(1, most + 1))
        drawn = random.integers(0, shape[0], rows)
        indices = drawn if number % 2 else np.unique(drawn)
        values = random.standard_normal((len(indices), *shape[1:])).astype(np.float32)
        yield mxopt.RowSparse(indices.astype(np.int32), values, shape)


def updater(shape):
    update, table = mxopt.get_updater("adam"), jnp.ones(shape)
    return lambda grad: update(0, grad, table)


def trainer(shape):
    trained = mxopt.Trainer({"table": jnp.ones(shape)}, "adam")
    return lambda grad: trained.step({"table": grad}, batch_size=2)


def single(shape):
    opt, table = mxopt.optimizer.SGD(momentum=0.9), jnp.ones(shape)
    state = opt.create_state(0, table)
    return lambda grad: opt.update(0, table, grad, state)


def wrapped(shape):
    trained = mxopt.Trainer(
        {"table": jnp.ones(shape)}, mxopt.ClipGlobalNorm(mxopt.SGD(), max_norm=1.0)
    )
    return lambda grad: trained.step({"table": grad}, batch_size=2)


def scaled(shape):
    scaler = mxopt.amp.DynamicLossScaler(init_scale=1.0)
    trained = mxopt.Trainer({"table": jnp.ones(shape)}, "sgd", loss_scaler=scaler)
    return lambda grad: trained.step({"table": grad}, batch_size=2)


def test_a_thousand_batches_compile_at_most_twenty_programs(compilations):
    step = updater((HEIGHT, 1))
    with compilations as seen:
        for grad in batches((HEIGHT, 1), 1000, 5000):
            step(grad)
    assert 0 < seen.count <= 20


@pytest.mark.usefixtures("compiled_quickly")
@pytest.mark.parametrize(("number", "kind"), [(2, trainer), (3, single), (4, wrapped), (5, scaled)])
def test_other_ways_compile_as_few(number, kind, compilations):
    shape = (700, number)
    step = kind(shape)
    with compilations as seen:
        for grad in batches(shape, 60, 500):
            step(grad)
    assert 0 < seen.count <= 20


@pytest.mark.usefixtures("compiled_quickly")
def test_two_tables_of_one_step_compile_few_programs(compilations):
    shapes = {"left": (900, 2), "right": (300, 3)}
    trained = mxopt.Trainer({name: jnp.ones(shape) for name, shape in shapes.items()}, "sgd")
    pairs = zip(
        batches(shapes["left"], 80, 800), batches(shapes["right"], 80, 250, seed=1), strict=True
    )
    with compilations as seen:
        for left, right in pairs:
            trained.step({"left": left, "right": right}, batch_size=1)
    assert 0 < seen.count <= 30


@pytest.mark.parametrize("name", ["sgd", "lars", "adam", "adagrad", "groupadagrad", "ftrl"])
def test_filling_up_changes_no_bit(name):
    shape = (50, 3)
    opt = mxopt.create(name, learning_rate=0.1).definition
    table = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
    ordered, disordered = itertools.islice(batches(shape, 2, 30), 2)
    step = jax.jit(lambda grad: opt.update("table", table, grad, opt.create_state("table", table)))
    for grad in (ordered, disordered):
        plain, filled = step(grad), step(grad.padded(64))
        for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(filled), strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_unchanging_number_of_rows_is_left_as_it_is():
    from jaxmxopt._stateful.filling import filled

    grad = mxopt.RowSparse(np.arange(37), np.ones((37, 11), np.float32), (41, 11))
    assert filled([grad])[0] is grad


def test_padded_rows_have_no_effect():
    grad = mxopt.RowSparse([3, 1, 3], jnp.ones((3, 2)), (5, 2))
    for size, rows in ((None, 8), (3, 3), (64, 64)):
        padded = grad.padded(size)
        assert padded.indices.shape == (rows,)
        np.testing.assert_array_equal(padded.todense(), grad.todense())
        np.testing.assert_array_equal(padded.norm(), grad.norm())


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int32"])
def test_padded_passes_the_height_in_any_dtype(dtype):
    grad = mxopt.RowSparse(np.array([127, 3], dtype), np.ones((2, 1), np.float16), (128, 1))
    np.testing.assert_array_equal(grad.padded(9).todense(), grad.todense())


def test_padded_works_inside_jit_and_compiles_nothing_outside(compilations):
    grad = mxopt.RowSparse([3, 1, 3], np.ones((3, 2), np.float32), (5, 2))
    with compilations as seen:
        outside = grad.padded(16)
    assert seen.count == 0
    inside = jax.jit(lambda grad: grad.padded(16))(grad)
    np.testing.assert_array_equal(outside.indices, inside.indices)
    np.testing.assert_array_equal(outside.values, inside.values)


def test_padded_refuses_fewer_rows():
    grad = mxopt.RowSparse([3, 1, 3], np.ones((3, 2), np.float32), (5, 2))
    with pytest.raises(ValueError, match="size must be at least the number of rows, 3, got 2"):
        grad.padded(2)


def test_rows_in_order_and_filled_up_are_not_sorted():
    padded = mxopt.RowSparse([1, 3], np.ones((2, 2), np.float32), (5, 2)).padded(4)
    rows = padded.unique()
    assert rows.indices[:2].tolist() == [1, 3]
    assert len(set(rows.indices.tolist())) == 4
    assert min(rows.indices[2:].tolist()) >= 5
