"""Row gradients of losses: against `jax.grad`, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxmxopt as mxopt

HEIGHT, WIDTH = 11, 3
IDS = jnp.array([3, 1, 3, -1])
PAIRS = jnp.array([[0, 1], [2, 2]])


def params(seed=0):
    draw = np.random.default_rng(seed)
    return {
        "table": jnp.asarray(draw.normal(size=(HEIGHT, WIDTH)), jnp.float32),
        "w": jnp.asarray(draw.normal(size=WIDTH), jnp.float32),
    }


def scanned(p, ids):
    def body(carry, i):
        return carry + jnp.tanh(p["table"][i] @ p["w"]), p["table"][jnp.stack([i, i + 1])].sum()

    carry, ys = jax.lax.scan(body, 0.0, ids)
    return carry + jnp.sum(ys**2)


def nested_scan(p, ids):
    inner = lambda c, i: (c + jnp.tanh(p["table"][i]).sum(), None)  # noqa: E731
    outer = lambda c, i: jax.lax.scan(inner, c * p["w"][0], ids + i)  # noqa: E731
    return jax.lax.scan(outer, 1.0, jnp.arange(2))[0] ** 2


def half(p, ids):
    return jnp.sum(p["table"].astype(jnp.bfloat16)[ids].astype(jnp.float32) ** 2)


LOSSES = {
    "indexing": lambda p, ids: jnp.sum(p["table"][ids] @ p["w"]),
    "take": lambda p, ids: jnp.sum(jnp.take(p["table"], ids, axis=0) ** 2),
    "clipped": lambda p, ids: jnp.sum(p["table"].at[ids + 9].get(mode="clip") ** 2),
    "filled": lambda p, ids: jnp.sum(
        p["table"].at[ids + 9].get(mode="fill", fill_value=1.0) ** 2 @ p["w"]
    ),
    "one row": lambda p, ids: jnp.sum(p["table"][ids[0]] ** 2),
    "several": lambda p, ids: jnp.sum(p["table"][ids]) * jnp.sum(p["table"][PAIRS] ** 2 @ p["w"]),
    "vmap": lambda p, ids: jnp.sum(jax.vmap(lambda i: jnp.tanh(p["table"][i] @ p["w"]))(ids)),
    "vmap to another axis": lambda p, ids: jnp.std(
        jax.vmap(lambda i: p["table"][jnp.stack([i, i])] @ p["w"], out_axes=1)(ids)
    ),
    "scan": scanned,
    "nested scan": nested_scan,
    "cast": half,
    "jit": lambda p, ids: jax.jit(lambda table: jnp.sum(table[ids]) ** 2)(p["table"]),
    "not looked up": lambda p, ids: jnp.sum(p["w"]),
    "read without gradient": lambda p, ids: jnp.sum(
        p["table"][ids] @ jax.lax.stop_gradient(p["table"]).T
    ),
    "custom derivative": lambda p, ids: jnp.sum(jax.nn.relu(p["table"][ids])),
}


def assert_agrees(given, expected):
    (value, grads), (true_value, true_grads) = given, expected
    np.testing.assert_allclose(value, true_value, rtol=1e-6)
    assert isinstance(grads["table"], mxopt.RowSparse)
    assert grads["table"].dtype == true_grads["table"].dtype
    np.testing.assert_allclose(grads["table"].todense(), true_grads["table"], 1e-5, 1e-6)
    np.testing.assert_allclose(grads["w"], true_grads["w"], 1e-5, 1e-6)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_agrees_with_the_dense_gradient(loss):
    expected = jax.value_and_grad(loss)(params(), IDS)
    assert_agrees(jax.jit(mxopt.value_and_row_grad(loss, "table"))(params(), IDS), expected)


def test_works_outside_jit():
    loss = LOSSES["several"]
    expected = jax.value_and_grad(loss)(params(), IDS)
    assert_agrees(mxopt.value_and_row_grad(loss, tables=["table"])(params(), ids=IDS), expected)


def test_only_what_is_looked_up_is_held():
    grads = mxopt.value_and_row_grad(LOSSES["several"], "t*")(params(), IDS)[1]
    assert grads["table"].indices.shape == (8,)
    grads = mxopt.value_and_row_grad(LOSSES["not looked up"], "table")(params(), IDS)[1]
    assert grads["table"].values.shape == (0, WIDTH)


def test_no_array_of_the_size_of_the_table_is_made():
    height = 100_000
    opt = mxopt.Adam()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(p, state, ids):
        value, grads = mxopt.value_and_row_grad(LOSSES["take"], "table")(p, ids)
        return opt.step(p, grads, state), value

    p = {"table": jnp.zeros((height, WIDTH)), "w": jnp.ones(WIDTH)}
    compiled = train.lower(p, opt.init(p), IDS).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < height


def test_aux_and_bare_arrays():
    loss = lambda table, ids: (jnp.sum(table[ids] ** 2), {"rows": table[ids]})  # noqa: E731
    table = params()["table"]
    (value, aux), grad = mxopt.value_and_row_grad(loss, "*", has_aux=True)(table, IDS)
    assert value.shape == ()
    np.testing.assert_array_equal(aux["rows"], table[IDS])
    np.testing.assert_allclose(grad.todense(), jax.grad(loss, has_aux=True)(table, IDS)[0], 1e-6)


def test_several_tables():
    both = {"in": params(0)["table"], "out": params(1)["table"]}
    loss = lambda p, ids: jnp.sum(p["in"][ids] * p["out"][ids + 1])  # noqa: E731
    grads = mxopt.value_and_row_grad(loss, "*")(both, IDS)[1]
    expected = jax.grad(loss)(both, IDS)
    for name in both:
        np.testing.assert_allclose(grads[name].todense(), expected[name], 1e-5, 1e-6)


def test_maps_over_stacked_models():
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), params(0), params(1))
    run = mxopt.value_and_row_grad(LOSSES["take"], "table")
    grads = jax.vmap(run, in_axes=(0, None))(stacked, IDS)[1]
    for number in range(2):
        alone = run(params(number), IDS)[1]["table"].todense()
        mapped = jax.tree.map(lambda leaf: leaf[number], grads)["table"]  # noqa: B023
        np.testing.assert_allclose(mapped.todense(), alone, 1e-6)


def test_each_device_has_the_rows_of_its_batch():
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    everywhere, split = PartitionSpec(), PartitionSpec("batch")

    def local(p, ids):
        grads = mxopt.value_and_row_grad(lambda p, ids: jnp.sum(p["table"][ids] ** 2), "table")(
            {"table": p}, ids
        )[1]
        return grads["table"].indices, grads["table"].values

    ids, table = jnp.arange(8) % 5, params()["table"]
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(everywhere, split), out_specs=split)
    indices, values = jax.jit(mapped)(table, ids)
    expected = jax.grad(lambda table: jnp.sum(table[ids] ** 2))(table)
    dense = mxopt.RowSparse(indices, values, table.shape).todense()
    np.testing.assert_allclose(dense, expected, 1e-6)


REFUSED = {
    "tied": (lambda p, ids: jnp.sum(p["table"][ids] @ p["table"].T), "transpose"),
    "norm": (lambda p, ids: jnp.sum(p["table"][ids]) + jnp.sum(jnp.abs(p["table"])), "abs"),
    "branch": (
        lambda p, ids: jax.lax.cond(ids[0] > 0, lambda: jnp.sum(p["table"][ids]), lambda: 0.0),
        "cond",
    ),
    "elements": (lambda p, ids: jnp.sum(p["table"][ids, 0]), "gather"),
    "rematerialised": (
        lambda p, ids: jax.checkpoint(lambda t: jnp.sum(t[ids] ** 2))(p["table"]),
        "checkpoint|remat",
    ),
}


@pytest.mark.parametrize(("loss", "operation"), REFUSED.values(), ids=REFUSED)
def test_other_uses_are_refused(loss, operation):
    message = rf"table 'table' must be used by .* got '({operation}).*test_embedding.py:\d+\. Leave"
    with pytest.raises(ValueError, match=message):
        mxopt.value_and_row_grad(loss, "table")(params(), IDS)


def test_scanning_over_a_table_is_refused():
    loss = lambda p: jax.lax.scan(lambda c, row: (c + jnp.sum(row), None), 0.0, p["table"])[0]  # noqa: E731
    with pytest.raises(ValueError, match="'table' must be closed over by a scan"):
        mxopt.value_and_row_grad(loss, "table")(params())


@pytest.mark.parametrize("tables", ["tabel", ["table", "*/bias"]], ids=str)
def test_unknown_tables_are_refused(tables):
    with pytest.raises(ValueError, match=r"tables must name leaves of params, \['table', 'w'\]"):
        mxopt.value_and_row_grad(LOSSES["take"], tables)(params(), IDS)


@pytest.mark.parametrize("tables", [3, None, ["table", 3]], ids=str)
def test_tables_that_are_no_paths_are_refused(tables):
    with pytest.raises(TypeError, match="tables must be a path, a pattern or a list of them, got"):
        mxopt.value_and_row_grad(LOSSES["take"], tables)


def test_what_cannot_be_a_table_is_refused():
    with pytest.raises(ValueError, match=r"table 't' must be floating .* int32"):
        mxopt.value_and_row_grad(lambda p: 0.0, "t")({"t": jnp.zeros(3, jnp.int32)})


def test_learns_lazily_what_it_learns_densely():
    """Plain SGD moves the same rows by the same amounts either way."""
    loss, opt = LOSSES["several"], mxopt.SGD(learning_rate=0.05)

    def train(gradient):
        p, state = params(), opt.init(params())
        for shift in range(3):
            p, state = opt.step(p, gradient(p, IDS + shift)[1], state)
        return p

    lazy = train(jax.jit(mxopt.value_and_row_grad(loss, "table")))
    dense = train(jax.jit(jax.value_and_grad(loss)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), lazy, dense)


def test_a_path_is_no_pattern():
    params = {"w[0]": jnp.ones((4, 2)), "w0": jnp.ones((4, 2))}

    def loss(params, ids):
        return jnp.sum(params["w[0]"][ids]) + jnp.sum(params["w0"] ** 2)

    _, grads = mxopt.value_and_row_grad(loss, "w[0]")(params, jnp.array([1, 2]))
    assert isinstance(grads["w[0]"], mxopt.RowSparse)
    assert grads["w0"].shape == (4, 2)
