"""Lazy updates: rows a gradient does not hold stay, the others move, and nothing is copied."""

import functools
import re
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from samples import ALGORITHMS, OWN, assert_near, assert_same, make, tree

import jaxmxopt as mxopt

SHAPE = (6, 16)
ROWS = [4, 1]
LAZY = [kind for kind in ALGORITHMS if kind._rowwise]
kinds = pytest.mark.parametrize("kind", LAZY, ids=lambda kind: kind.__name__)
# Of each way to move rows one: the engine is the same for all.
FEW = [mxopt.SGD, mxopt.Adam, mxopt.LARS, mxopt.Ftrl]
few = pytest.mark.parametrize("kind", FEW, ids=lambda kind: kind.__name__)
# The norm of the whole weight is part of the rates of LARS.
BY_THE_ROW = [kind for kind in LAZY if kind is not mxopt.LARS]


def table(seed=0, shape=SHAPE):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def rows(indices=(4, 1), seed=1, shape=SHAPE):
    values = np.random.default_rng(seed).normal(size=(len(indices), *shape[1:]))
    return mxopt.RowSparse(np.asarray(indices, np.int32), np.float32(values), shape)


def per_row(leaf):
    return leaf.ndim > 0 and leaf.shape[0] == SHAPE[0]


def some(state, indices):
    """The part of a state that belongs to some rows."""
    return jax.tree.map(lambda leaf: leaf[np.asarray(indices)] if per_row(leaf) else leaf, state)


def moved(opt, steps=2):
    """A table with slots off their start, and its state."""
    weight, state = table(), opt.create_state(0, table())
    for seed in range(steps):
        weight, state = opt.update(0, weight, table(7 + seed), state)
    return weight, state


@kinds
def test_touches_its_rows_alone(kind):
    opt = make(kind, lazy_update=True)
    weight, state = moved(opt)
    updated, new = opt.update(0, weight, rows(), state)
    others = [0, 2, 3, 5]
    assert_same(updated[np.array(others)], weight[np.array(others)])
    kept, before = some(new.slots, others), some(state.slots, others)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(before), strict=True):
        if a.shape[:1] == (4,):
            assert_same(a, b)
    assert np.all(np.any(updated[np.array(ROWS)] != weight[np.array(ROWS)], axis=1))
    assert new.num_update == 3


@pytest.mark.parametrize("kind", BY_THE_ROW, ids=lambda kind: kind.__name__)
def test_moves_its_rows_as_a_table_of_them_alone_would(kind):
    opt = make(kind, lazy_update=True)
    weight, state = moved(opt)
    updated, new = opt.update(0, weight, rows(), state)
    index = np.array(ROWS)
    alone = opt.update(0, weight[index], rows().values, some(state, ROWS))
    assert_near((updated[index], some(new, ROWS)), alone, 4)


@few
def test_without_laziness_acts_as_the_dense_gradient(kind):
    opt = make(kind, lazy_update=False)
    weight, state = moved(opt)
    grad = rows([4, 1, 4])
    assert_near(opt.update(0, weight, grad, state), opt.update(0, weight, grad.todense(), state), 4)


@pytest.mark.filterwarnings("ignore:.*lazy_update=True changes nothing:UserWarning")
@pytest.mark.parametrize("name", ["LAMB", "LANS", "LBSGD", "SGLD"])
def test_algorithms_of_the_whole_weight_take_the_dense_gradient(name):
    opt = make(getattr(mxopt, name), lazy_update=True)
    weight, state = moved(opt)
    grad = rows([4, 1, 4])
    assert_near(opt.update(0, weight, grad, state), opt.update(0, weight, grad.todense(), state), 4)


@few
def test_duplicates_add_up_and_order_is_of_no_account(kind):
    opt = make(kind, lazy_update=True)
    weight, state = moved(opt)
    grad = rows([4, 1, 4, 0])
    dense = grad.todense()
    once = mxopt.RowSparse([0, 1, 4], dense[np.array([0, 1, 4])], SHAPE)
    assert_near(opt.update(0, weight, grad, state), opt.update(0, weight, once, state), 4)


@pytest.mark.parametrize("kind", [*FEW, mxopt.Nadam], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("count", [128, 140])
def test_rows_in_blocks_are_those_at_once(kind, count, monkeypatch):
    opt, shape = make(kind, lazy_update=True), (300, 3)
    weight = table(0, shape)
    draws = [np.random.default_rng(s).permutation(310)[:count] % 300 for s in (1, 2)]
    grads = [rows(draw, 1, shape) for draw in draws]

    def trained():
        # The size of a block is none of what compiled functions are told apart by.
        jax.clear_caches()
        new, state = weight, opt.create_state(0, weight)
        for grad in grads:
            new, state = opt.update(0, new, grad, state)
        return new, state

    at_once = trained()
    monkeypatch.setattr("jaxmxopt._core.rows.BLOCK", 0)
    assert_near(trained(), at_once, 4)


def test_blocks_of_rows_under_shard_map(monkeypatch):
    monkeypatch.setattr("jaxmxopt._core.rows.BLOCK", 0)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    opt, shape, split = make(mxopt.SGD, lazy_update=True), (300, 5), PartitionSpec("d")
    weight, state = table(0, shape), opt.create_state(0, table(0, shape))
    grads = [rows(np.arange(130) + start, start, shape) for start in (0, 150)]

    def each(indices, values):
        grad = mxopt.RowSparse(indices, values, shape)
        return opt.update(0, weight, grad, state)[0][None]

    whole = grads[0] + grads[1]
    mapped = jax.shard_map(each, mesh=mesh, in_specs=(split, split), out_specs=split)
    both = jax.jit(mapped)(whole.indices, whole.values)
    for grad, updated in zip(grads, both, strict=True):
        assert_near(updated, opt.update(0, weight, grad, state)[0])


@kinds
def test_a_gradient_without_rows_only_counts(kind):
    opt = make(kind, lazy_update=True)
    weight, state = moved(opt)
    updated, new = opt.update(0, weight, rows([]), state)
    assert_same(updated, weight)
    assert new.num_update == 3
    for a, b in zip(jax.tree.leaves(new.slots), jax.tree.leaves(state.slots), strict=True):
        if per_row(a):
            assert_same(a, b)


def test_rows_outside_are_dropped_under_jit():
    opt = mxopt.Adam()
    weight, state = moved(opt)

    @jax.jit
    def update(indices, values):
        return opt.update(0, weight, mxopt.RowSparse(indices, values, SHAPE), state)

    values = rows([0, 0, 0, 0]).values
    inside = mxopt.RowSparse([4, 1], values[np.array([0, 2])], SHAPE)
    expected = opt.update(0, weight, inside, state)
    assert_near(update(np.int32([4, -1, 1, 99]), values), expected)
    last = update(np.int32([6, 7, -6, 6]), values)
    assert_same(last[0], weight)


def in_place(kind, multi):
    """Fails if a compiled step holds anything as high as the table beside what it is given."""
    height, width = 40_000, 16
    opt = make(kind, lazy_update=True, multi_precision=multi)
    shape = jax.ShapeDtypeStruct((height, width), jnp.float16 if multi else jnp.float32)
    state = jax.eval_shape(opt.init, shape)
    grad = rows([7, 3, 7, 5], shape=(height, width))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train(weight, state, grad):
        return opt.step(weight, grad, state)

    compiled = train.lower(shape, state, grad).compile()
    memory = compiled.memory_analysis()
    assert not re.findall(rf"= \w+\[{height},\d+\]\S* copy\(", compiled.as_text())
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < height
    # XLA casts the weight before it takes its norm, and up to jaxlib 0.10.1 squares it before.
    before = tuple(map(int, version("jaxlib").split("."))) < (0, 10, 2)
    if not (kind is mxopt.LARS and (multi or before)):
        assert memory.temp_size_in_bytes < height


@kinds
def test_donated_tables_stay_in_place(kind):
    in_place(kind, multi=False)


@few
def test_donated_masters_stay_in_place(kind):
    in_place(kind, multi=True)


@few
def test_step_with_donate_reuses_the_buffers(kind):
    opt = make(kind, lazy_update=True)
    params = {"table": jnp.copy(table(0, (9000, 16)))}
    state = opt.init(params)
    buffers = lambda tree: {  # noqa: E731
        leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree) if leaf.ndim == 2
    }
    before = buffers((params, state))
    grads = {"table": rows([8000, 3, 3], shape=(9000, 16))}
    assert buffers(opt.step(params, grads, state, donate=True)) == before


@few
def test_where_false_leaves_every_bit(kind):
    opt = make(kind, lazy_update=True)
    params, state = {"t": table()}, opt.init({"t": table()})
    kept = opt.step(params, {"t": rows() * np.nan}, state, where=jnp.bool_(False))
    assert_same(kept, (params, state))


@few
def test_half_precision_with_masters(kind):
    opt = make(kind, lazy_update=True, multi_precision=True)
    weight = table().astype(jnp.float16)
    state = opt.create_state_multi_precision(0, weight)
    updated, new = opt.update(0, weight, rows().astype(jnp.float16), state)
    others = np.array([0, 2, 3, 5])
    assert_same(updated[others], weight[others])
    assert_same(new.master[others], state.master[others])
    assert_same(updated[np.array(ROWS)], new.master[np.array(ROWS)].astype(jnp.float16))


@pytest.mark.filterwarnings("ignore:.*lazy_update=True changes nothing:UserWarning")
@pytest.mark.parametrize("name", ["Adam", "Ftrl", "LAMB"])
def test_sparse_and_dense_leaves_in_one_tree(name):
    opt = make(getattr(mxopt, name), lazy_update=True)
    params, grads = tree(), tree(1)
    held = mxopt.RowSparse([2, 0, 1], grads["a"][np.array([2, 0, 1])], params["a"].shape)
    mixed = opt.step(params, {**grads, "a": held}, opt.init(params))
    assert_near(mixed, opt.step(params, grads, opt.init(params)), 4)  # All rows are held.


def test_updater_takes_mixed_lists():
    opt = mxopt.SGD(learning_rate=0.1, momentum=0.9)
    weights, grads = [table(0), table(1)], [rows(), table(2)]
    updated = mxopt.get_updater(opt)([0, 1], grads, weights)
    for index in range(2):
        state = opt.create_state(index, weights[index])
        assert_near(updated[index], opt.update(index, weights[index], grads[index], state)[0], 4)


def test_trainer_takes_mixed_trees():
    opt = mxopt.SGD(learning_rate=0.1, momentum=0.9)
    params, grads = {"t": table(0), "w": table(1)}, {"t": rows(), "w": table(2)}
    expected, _ = opt.replace(rescale_grad=0.5).step(params, grads, opt.init(params))
    trained = mxopt.Trainer(jax.tree.map(jnp.copy, params), opt).step(grads, 2)
    assert_near(trained, expected, 4)


@few
def test_tables_divided_by_rows_stay_divided(kind):
    opt, shape = make(kind, lazy_update=True), (16, 24)
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
    by_rows = NamedSharding(mesh, PartitionSpec("rows"))
    params, grads = {"t": table(0, shape)}, {"t": rows([13, 2, 13, 7], shape=shape)}
    expected = opt.step(params, grads, opt.init(params))
    divided = jax.device_put(params, by_rows)
    stepped = opt.step(divided, grads, opt.init(divided))
    assert_near(stepped, expected, 8)
    for leaf in jax.tree.leaves(stepped):
        if leaf.shape[:1] == (16,):
            assert leaf.sharding.is_equivalent_to(by_rows, leaf.ndim)


def test_vmap_and_scan():
    opt = mxopt.Adam(learning_rate=0.1)
    grads = [rows([4, 1, 4], seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    weight, state = table(), opt.create_state(0, table())
    mapped = jax.vmap(opt.update, in_axes=(None, None, 0, None))(0, weight, stacked, state)
    for number, grad in enumerate(grads):
        one = opt.update(0, weight, grad, state)
        assert_near(jax.tree.map(lambda leaf: leaf[number], mapped), one, 4)  # noqa: B023
    looped = (weight, state)
    for grad in grads:
        looped = opt.update(0, looped[0], grad, looped[1])
    body = lambda carry, grad: (opt.update(0, carry[0], grad, carry[1]), None)  # noqa: E731
    assert_near(jax.lax.scan(body, (weight, state), stacked)[0], looped, 4)


def test_laziness_is_the_default_where_mxnet_has_it():
    assert {kind.__name__ for kind in ALGORITHMS if kind(**_needed(kind)).lazy_update} == {
        "SGD", "ccSGD", "LARS", "Adam", "AdaGrad", "GroupAdaGrad", "Ftrl",
    }  # fmt: skip


def _needed(kind):
    return {"batch_scale": OWN["LBSGD"]["batch_scale"]} if kind.__name__ == "LBSGD" else {}
