"""Lazy updates: rows a gradient does not hold stay, the others move, and nothing is copied."""

import functools
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from samples import ALGORITHMS, OWN, assert_near, assert_same, make, tree

import jaxmxopt as mxopt
from jaxmxopt.algorithm import OptimizerDef, Static

SHAPE = (6, 16)
ROWS = [4, 1]
LAZY = [row.cls for row in CATALOGUE if not row.whole]
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
@pytest.mark.parametrize(
    ("height", "width", "count"),
    [(300, 3, 128), (300, 3, 140), (3000, 16, 2000), (40, 700, 30), (9, 20_000, 5)],
    ids=["narrow", "narrow, uneven", "many", "wide", "widest"],
)
def test_many_rows_and_wide_ones_are_those_of_the_dense_gradient(kind, height, width, count):
    """Rows that all have been held twice are where two dense updates would have put them."""
    opt, shape = make(kind, lazy_update=True), (height, width)
    weight = table(0, shape)
    order = np.random.default_rng(1).permutation(height)[:count]
    state = lazy = opt.create_state(0, weight)
    new = moved_lazily = weight
    for seed in (1, 2):
        grad = rows(order, seed, shape)
        moved_lazily, lazy = opt.update(0, moved_lazily, grad, lazy)
        new, state = opt.update(0, new, grad.todense(), state)
    if kind is mxopt.LARS:  # The norm of the whole weight, of which other rows have moved.
        assert_same(np.delete(moved_lazily, order, 0), np.delete(weight, order, 0))
        return
    assert_near(moved_lazily[order], new[order], 8)
    held = lambda leaf: leaf[order] if leaf.shape[:1] == (height,) else leaf  # noqa: E731
    assert_near(jax.tree.map(held, lazy.slots), jax.tree.map(held, state.slots), 8)
    assert_same(np.delete(moved_lazily, order, 0), np.delete(weight, order, 0))


def test_rows_under_shard_map():
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

    memory = train.lower(shape, state, grad).compile().memory_analysis()
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < height
    # A norm of the whole weight is taken of what may be cast or squared before: one array.
    most = height + (4 * height * width if kind is mxopt.LARS else 0)
    assert memory.temp_size_in_bytes <= most


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


# Tables as large as they come.


def test_very_many_rows():
    opt, weight = mxopt.Adam(), table(0, (100_000, 16))
    grad, state = rows(np.arange(70_000), 1, weight.shape), opt.init(weight)
    new, _ = opt.step(weight, grad, state)
    dense, _ = opt.step(weight, grad.todense(), state)
    assert_near(new[:70_000], dense[:70_000])
    assert_same(new[70_000:], weight[70_000:])


@pytest.mark.parametrize("shape", [(16384,), (64, 256), (8192, 2)], ids=str)
@pytest.mark.parametrize("name", ["Adam", "AdaDelta", "DCASGD", "FTML", "Ftrl", "Nadam"])
def test_the_widest_rows(name, shape):
    opt, weight = make(getattr(mxopt, name), lazy_update=True), jnp.ones((8, *shape))
    grad = rows([4, 1, 4], 1, weight.shape)
    new, _ = opt.step(weight, grad, opt.init(weight))
    dense, _ = opt.step(weight, grad.todense(), opt.init(weight))
    assert_near(new[np.array(ROWS)], dense[np.array(ROWS)], 4)
    assert_same(np.delete(new, ROWS, 0), np.delete(weight, ROWS, 0))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("caller", ["jit", "scan", "no arguments"])
def test_rows_may_be_many_constants(caller, ordered):
    opt, weight = mxopt.Adam(), table(0, (20_000, 16))
    places = np.random.default_rng(2).permutation(20_000)[:9000]
    grad = rows(np.sort(places) if ordered else places, 1, weight.shape)
    state = opt.init(weight)
    expected = jax.jit(opt.step)(weight, grad, state)
    step = lambda weight, state: opt.step(weight, grad, state)  # noqa: E731
    if caller == "jit":
        found = jax.jit(step)(weight, state)
    elif caller == "scan":
        run = lambda now: lax.scan(lambda now, _: (step(*now), None), now, length=1)[0]  # noqa: E731
        found = jax.jit(run)((weight, state))
    else:
        found = jax.jit(lambda: step(weight, state))()
    assert_near(found, expected, 4)


# Indices of any kind.


def test_the_last_row_stays_where_indices_are_unused():
    opt, weight = mxopt.Adam(), table(0, (50, 16))

    @jax.jit
    def update(places):
        grad = mxopt.RowSparse(places, jnp.ones((4, 16)), weight.shape)
        return opt.step(weight, grad, opt.init(weight))[0]

    assert_same(update(np.int32([50, -1, 99, 51])), weight)
    new = update(np.int32([49, 49, 99, 3]))
    changed = np.flatnonzero(np.any(new != weight, axis=1))
    assert changed.tolist() == [3, 49]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int16])
def test_rows_of_other_integers(dtype):
    opt, weight, grad = mxopt.Adam(), table(), rows([4, 1, 4])
    other = mxopt.RowSparse(np.asarray(grad.indices).astype(dtype), grad.values, grad.shape)
    state = opt.init(weight)
    assert_same(opt.step(weight, other, state), opt.step(weight, grad, state))


def test_under_vmap_what_is_not_mapped_stays_one_for_all():
    opt, ones = make(mxopt.LARS), jnp.ones((50, 16))
    state, places = opt.create_state("w", ones), jnp.array([1, 2])

    def stepped(values):
        new, after = opt.update("w", ones, mxopt.RowSparse(places, values, (50, 16)), state)
        return new, after.slots.last_lr

    values = jnp.stack([jnp.full((2, 16), x) for x in (1.0, 2.0)])
    new, last = jax.vmap(stepped, out_axes=(0, None))(values)
    assert last == pytest.approx(0.05)
    for one, alone in zip(new, values, strict=True):
        assert_near(one, stepped(alone)[0], 4)


# Rules of one's own.


class Slots(NamedTuple):
    mean: Any
    more: Any


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (lambda like: like.zeros(dtype=jnp.int8), lambda x: x + jnp.int8(1)),
        (lambda like: like.full(0, axes=(), dtype=jnp.int32), lambda x: x + jnp.int32(1)),
        (
            lambda like: like.array(jax.random.split(jax.random.key(0), like.shape[0]), axes=(0,)),
            lambda x: x,
        ),
        (lambda like: like.array(jnp.zeros((like.shape[0], 0)), axes=(0, None)), lambda x: x),
        (lambda like: like.zeros(axes=(0,)), lambda x: x + jnp.float32(1)),
    ],
    ids=["int8", "count", "keys", "empty", "one a row"],
)
def test_slots_of_other_kinds(start, change):
    class Own(OptimizerDef):
        lazy_update: Static[bool] = True
        acts_on = "rows"

        def slots(self, like: Any) -> Slots:
            return Slots(like.zeros(), start(like))

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            mean = slots.mean + grad
            return weight - rates.lr * mean, Slots(mean, change(slots.more))

    opt, weight, grad = Own(learning_rate=0.1), table(), rows([4, 1, 4])
    new, state = opt.step(weight, grad, opt.init(weight))
    assert_near(new, weight - jnp.float32(0.1) * grad.todense())
    more = state.unpack(weight).slots.more
    if more.shape == SHAPE and more.dtype == jnp.int8:
        assert np.flatnonzero(more.any(axis=1)).tolist() == [1, 4]


def test_a_slot_that_is_wider_than_its_weight():
    class Wide(mxopt.Adam):
        acts_on = "rows"

        def slots(self, like: Any) -> Any:
            mean = like.array(jnp.zeros((*like.shape, 30)), axes=(0, 1, None))
            return super().slots(like)._replace(mean=mean)

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            mean = jnp.tanh(slots.mean + jnp.expand_dims(grad, -1))
            return weight - rates.lr * mean[..., 0], slots._replace(mean=mean)

    opt, weight = Wide(), table()
    new, state = opt.step(weight, rows(), opt.init(weight))
    assert state.unpack(new).slots.mean.shape == (*SHAPE, 30)
    assert np.flatnonzero(np.any(new != weight, axis=1)).tolist() == sorted(ROWS)


def heavy(grad: Any) -> Any:
    for _ in range(10):
        grad = jnp.sin(grad) + jnp.tanh(grad)
    return grad


def looping(grad: Any) -> Any:
    return lax.while_loop(lambda x: jnp.any(x > 1), lambda x: x / 2, grad)


def sorting(grad: Any) -> Any:
    return jnp.sort(grad, axis=1)


def mixing(grad: Any) -> Any:
    return grad @ jnp.ones((16, 16))


def running(grad: Any) -> Any:
    return jnp.cumsum(grad, 1)


@pytest.mark.parametrize(
    "what", [heavy, sorting, mixing, running, looping], ids=lambda what: what.__name__
)
def test_a_rule_by_row_may_do_what_it_likes(what):
    class Doing(mxopt.SGD):
        acts_on = "rows"

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            return super().rule(rates, weight, what(grad), slots)

    opt, weight, grad = Doing(learning_rate=0.1, momentum=0.9), table(), rows([4, 1])
    new, _ = opt.step(weight, grad, opt.init(weight))
    assert np.flatnonzero(np.any(new != weight, axis=1)).tolist() == sorted(ROWS)
    if what is not looping:  # Which asks all of a gradient when it is enough.
        expected = weight[np.array([4, 1])] - jnp.float32(0.1) * what(grad.values)
        assert_near(new[np.array([4, 1])], expected, 8)


@pytest.mark.filterwarnings("ignore:Adam. state of half-precision weights")
@pytest.mark.parametrize("multi_precision", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype, multi_precision):
    opt = mxopt.Adam(multi_precision=multi_precision)
    weight, grad = table().astype(dtype), rows([4, 1]).astype(dtype)
    new, _ = opt.step(weight, grad, opt.init(weight))
    dense, _ = opt.step(weight, grad.todense(), opt.init(weight))
    assert_near(new[np.array(ROWS)], dense[np.array(ROWS)], 2)
    assert_same(np.delete(new, ROWS, 0), np.delete(weight, ROWS, 0))


@pytest.mark.parametrize("donate", [False, True])
def test_rows_in_a_step_and_in_its_callers_program(donate):
    opt, weight = mxopt.Adam(), table(0, (50, 16))
    args = weight, rows([4, 1, 4], shape=(50, 16)), opt.init(weight)
    expected = jax.jit(opt.step)(*args)
    assert_near(opt.step(*args, donate=donate), expected, 2)


def test_rows_have_derivatives():
    opt, weight, grad = mxopt.Adam(), table(), rows()

    def moved_by(rate: Any) -> Any:
        return opt.replace(learning_rate=rate).step(weight, grad, opt.init(weight))[0].sum()

    slope = jax.grad(moved_by)(0.1)
    assert_near(slope, moved_by(jnp.float32(1.1)) - moved_by(jnp.float32(0.1)), 400)


def test_steps_of_rows_are_exported():
    opt, weight = mxopt.Adam(), table()
    args = weight, rows(), opt.init(weight)
    exported = jax.export.export(jax.jit(opt.step))(*args)
    assert_near(exported.call(*args), opt.step(*args), 2)


@pytest.mark.parametrize("count", [1, 4])
def test_a_table_divided_by_columns_on_an_explicit_mesh(count):
    mesh = jax.make_mesh((count,), ("d",), axis_types=(AxisType.Explicit,))
    opt, weight, grad = mxopt.Adam(), table(), rows()
    expected = opt.step(weight, grad, opt.init(weight))[0]
    divided = jax.device_put(weight, NamedSharding(mesh, PartitionSpec(None, "d")))
    whole = NamedSharding(mesh, PartitionSpec())
    grad = jax.tree.map(lambda leaf: jax.device_put(leaf, whole), grad)
    assert_near(np.asarray(opt.step(divided, grad, opt.init(divided))[0]), np.asarray(expected))
