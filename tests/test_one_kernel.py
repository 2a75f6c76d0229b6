"""A loop that XLA compiles to one kernel on one CPU gives way to another form everywhere else."""

from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from samples import assert_near, assert_same, make

import jaxmxopt as mxopt
from jaxmxopt._core import one_kernel as _one_kernel
from jaxmxopt._core.one_kernel import in_one_kernel
from jaxmxopt.algorithm import OptimizerDef, Static, first, zeros_like

SUPPORTED = version("jaxlib") in ("0.10.0", "0.10.1", "0.10.2")
MARK = 'xla_cpu_small_call = "true"'
ARRAY = jnp.arange(12.0).reshape(4, 3)
TWO = jnp.float32(2)


def by_row(array, scale):
    def step(place, now):
        row = lax.dynamic_slice_in_dim(now, place, 1)
        return lax.dynamic_update_slice_in_dim(now, row * row * scale, place, 0)

    return {"out": lax.fori_loop(0, array.shape[0], step, array), "count": scale + 1}


def at_once(array, scale):
    return {"out": array * array * scale, "count": scale + 1}


def either(array, scale=TWO):
    return in_one_kernel(by_row, at_once, array, scale)


def marked(function, *args):
    """Whether XLA is told to make one kernel of it, and can."""
    lowered = jax.jit(function).lower(*args)
    lowered.compile()
    # XLA itself marks small loops when it compiles.
    return MARK in lowered.as_text()


def table(height=50, width=16):
    return jnp.asarray(np.random.default_rng(0).normal(size=(height, width)), jnp.float32)


def gradient(weight, rows=(4, 1, 4)):
    values = np.random.default_rng(1).normal(size=(len(rows), *weight.shape[1:]))
    return mxopt.RowSparse(np.int32(rows), np.float32(values), weight.shape)


def one_update(opt, weight):
    """A step of some rows, and its arguments."""
    return opt.step, weight, gradient(weight), opt.init(weight)


def test_is_one_kernel_on_one_cpu():
    assert marked(either, ARRAY) == SUPPORTED
    assert_same(jax.jit(either)(ARRAY), at_once(ARRAY, TWO))
    assert_same(either(ARRAY), at_once(ARRAY, TWO))


def test_closes_over_traced_values():
    def scaled(scale):
        inner = lambda form: lambda array: form(array, scale)  # noqa: E731
        return in_one_kernel(inner(by_row), inner(at_once), ARRAY)

    assert marked(scaled, 3.0) == SUPPORTED
    assert_same(jax.jit(scaled)(3.0), at_once(ARRAY, jnp.float32(3.0)))


@pytest.mark.parametrize("attribute", ["SUPPORTED", "on_cpu"])
def test_gives_way_on_what_is_not_tested(attribute, monkeypatch):
    monkeypatch.setattr(
        _one_kernel, attribute, False if attribute == "SUPPORTED" else lambda: False
    )
    assert not marked(lambda array: either(array), ARRAY)


@pytest.mark.parametrize(
    "operation",
    [jnp.sort, jnp.sum, lambda row: row @ jnp.ones((3, 3)), lambda row: jnp.cumsum(row, 0)],
    ids=["sort", "sum", "product", "running sum"],
)
def test_gives_way_to_what_a_kernel_cannot_hold(operation):
    def kernel(array):
        return lax.fori_loop(0, 2, lambda _, now: now * 0 + operation(now), array)

    run = lambda array: in_one_kernel(kernel, lambda array: array + 1, array)  # noqa: E731
    assert not marked(run, ARRAY)
    assert_same(jax.jit(run)(ARRAY), ARRAY + 1)


def test_under_vmap():
    stacked = jnp.stack([ARRAY, ARRAY + 1])
    assert not marked(jax.vmap(either), stacked)
    assert_same(jax.vmap(either)(stacked)["out"], stacked * stacked * 2)
    assert jax.jit(jax.vmap(jax.jit(either), 1))(stacked)["out"].shape == (4, 2, 3)


def test_derivatives():
    square = lambda array: jnp.sum(either(array)["out"])  # noqa: E731
    assert_same(jax.grad(square)(ARRAY), 4 * ARRAY)
    assert_same(jax.jit(jax.grad(jax.jit(square)))(ARRAY), 4 * ARRAY)
    _, change = jax.jvp(lambda s: either(ARRAY, s), (2.0,), (1.0,))
    assert_same(change["out"], ARRAY * ARRAY)
    assert_same(jax.hessian(lambda s: square(ARRAY * s))(1.0), 4 * jnp.sum(ARRAY * ARRAY))


def test_integers_beside_derivatives():
    form = lambda x, n: (x * n.astype(x.dtype), n + 1)  # noqa: E731
    run = lambda x: in_one_kernel(form, form, x, jnp.int32(3))  # noqa: E731
    value, change = jax.jvp(run, (TWO,), (TWO,))
    assert_same(value, (jnp.float32(6), jnp.int32(4)))
    assert change[0] == 6


def test_on_several_devices():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    split = jax.device_put(ARRAY, NamedSharding(mesh, PartitionSpec("d")))
    assert not marked(either, split)
    assert_same(jax.jit(either)(split)["out"], at_once(ARRAY, TWO)["out"])
    mapped = jax.shard_map(
        lambda array: either(array)["out"],
        mesh=mesh,
        in_specs=PartitionSpec("d"),
        out_specs=PartitionSpec("d"),
    )
    assert_same(jax.jit(mapped)(split), at_once(ARRAY, TWO)["out"])


def test_is_not_exported():
    opt, weight = mxopt.Adam(), table()
    step, *args = one_update(opt, weight)
    exported = jax.export.export(jax.jit(step))(*args)
    assert "xla_cpu_small_call" not in exported.mlir_module()
    assert_near(exported.call(*args), step(*args), 2)


@pytest.mark.parametrize("donate", [False, True])
def test_rows_are_one_kernel_in_a_step_and_in_its_callers_program(donate):
    opt, weight = mxopt.Adam(), table()
    step, *args = one_update(opt, weight)
    assert marked(step, *args) == SUPPORTED
    expected = jax.jit(step)(*args)
    assert_near(opt.step(*args, donate=donate), expected, 2)


@pytest.mark.parametrize(
    ("opt", "width"),
    [(mxopt.SGD(), 16), (mxopt.Adam(), 15), (mxopt.Adam(), 16385)],
    ids=["one table", "narrow rows", "wide rows"],
)
def test_rows_are_left_to_several_threads(opt, width):
    step, *args = one_update(opt, table(width=width))
    assert not marked(step, *args)


@pytest.mark.parametrize("shape", [(16384,), (64, 256), (8192, 2)])
@pytest.mark.parametrize("name", ["Adam", "AdaDelta", "DCASGD", "FTML", "Ftrl", "Nadam"])
def test_the_widest_rows_compile(name, shape):
    opt, weight = make(getattr(mxopt, name), lazy_update=True), jnp.ones((8, *shape))
    assert marked(*one_update(opt, weight)) == SUPPORTED


def test_a_slot_that_is_wider_than_its_weight():
    class Wide(mxopt.Adam):
        def _slots(self, weight, index):
            mean = jnp.zeros((*weight.shape, 300))
            return super()._slots(weight, index)._replace(mean=mean)

        def _rule(self, rates, weight, grad, slots):
            mean = jnp.tanh(slots.mean + grad[..., None])
            return weight - rates.lr * mean[..., 0], slots._replace(mean=mean)

        _row_rule = _rule

    step, *args = one_update(Wide(), table(width=64))
    assert not marked(step, *args)
    assert step(*args)[1].unpack(args[0]).slots.mean.shape == (50, 64, 300)


@pytest.mark.filterwarnings("ignore:Adam. state of half-precision weights")
@pytest.mark.parametrize("multi_precision", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(dtype, multi_precision):
    opt, weight = mxopt.Adam(multi_precision=multi_precision), table().astype(dtype)
    step, *args = one_update(opt, weight)
    assert marked(step, *args) == (SUPPORTED and dtype == jnp.float16)


def test_a_heavy_rule_that_computes_something_first():
    class Heavy(mxopt.SGD):
        def _rule(self, rates, weight, grad, slots):
            def waves(x):
                for _ in range(10):
                    x = jnp.sin(x) + jnp.tanh(x)
                return x

            return super()._rule(rates, weight, first(waves, grad), slots)

        _row_rule = _rule

    opt, weight = Heavy(learning_rate=0.1, momentum=0.9), table(width=16384)
    step, *args = one_update(opt, weight)
    assert marked(step, *args) == SUPPORTED
    changed = np.flatnonzero(np.any(opt.step(*args)[0] != weight, axis=1))
    assert changed.tolist() == [1, 4]


def test_gives_way_to_loops_in_a_rule():
    class Looping(mxopt.SGD):
        def _rule(self, rates, weight, grad, slots):
            grad = lax.while_loop(lambda x: jnp.max(x) > 1, lambda x: x / 2, grad)
            return super()._rule(rates, weight, grad, slots)

        _row_rule = _rule

    opt, weight = Looping(learning_rate=0.1, momentum=0.9), table()
    assert not marked(*one_update(opt, weight))


@pytest.mark.parametrize("setting", ["jax_disable_jit", "jax_debug_nans"])
def test_gives_way_to_who_wants_to_see_every_operation(setting):
    opt, weight = mxopt.Adam(), table()
    step, *args = one_update(opt, weight)
    expected = step(*args)
    jax.config.update(setting, True)
    try:
        jax.clear_caches()
        assert setting == "jax_disable_jit" or not marked(step, *args)
        assert_near(step(*args), expected, 4)
    finally:
        jax.config.update(setting, False)


@pytest.mark.parametrize("count", [1, 4])
def test_a_table_divided_by_columns_on_an_explicit_mesh(count):
    mesh = jax.make_mesh((count,), ("d",), axis_types=(AxisType.Explicit,))
    opt, weight = mxopt.Adam(), table()
    expected = opt.step(weight, gradient(weight), opt.init(weight))[0]
    divided = jax.device_put(weight, NamedSharding(mesh, PartitionSpec(None, "d")))
    whole = NamedSharding(mesh, PartitionSpec())
    grad = jax.tree.map(lambda leaf: jax.device_put(leaf, whole), gradient(weight))
    assert_near(np.asarray(opt.step(divided, grad, opt.init(divided))[0]), np.asarray(expected))


class Slots(NamedTuple):
    mean: Any
    more: Any


@pytest.mark.parametrize(
    ("start", "change"),
    [
        (lambda w: jnp.zeros(w.shape, jnp.int8), lambda x: x + jnp.int8(1)),
        (lambda w: jnp.zeros((), jnp.uint8), lambda x: (x + jnp.uint8(1)).astype(jnp.int32)),
        (lambda w: jax.random.split(jax.random.key(0), w.shape[0]), lambda x: x),
        (lambda w: jnp.zeros((w.shape[0], 0)), lambda x: x),
    ],
    ids=["int8", "count", "keys", "empty"],
)
def test_slots_of_other_kinds(start, change):
    class Own(OptimizerDef):
        lazy_update: Static[bool] = True
        _slot_types = (Slots,)

        def _slots(self, weight, index):
            return Slots(zeros_like(weight), start(weight))

        def _rule(self, rates, weight, grad, slots):
            mean = slots.mean + grad
            return weight - rates.lr * mean, Slots(mean, change(slots.more))

    opt, weight = Own(learning_rate=0.1), table()
    grad = gradient(weight)
    new = opt.step(weight, grad, opt.init(weight))[0]
    assert_near(new, weight - jnp.float32(0.1) * grad.todense())


def test_very_many_rows():
    opt, weight = mxopt.Adam(), table(100_000)
    step, *args = one_update(opt, weight)
    args[1] = gradient(weight, np.arange(70_000))
    assert marked(step, *args) == SUPPORTED
    assert_near(step(*args)[0][:70_000], step(weight, args[1].todense(), args[2])[0][:70_000])


def test_the_last_row_stays_where_indices_are_unused():
    opt, weight = mxopt.Adam(), table()

    @jax.jit
    def update(rows):
        grad = mxopt.RowSparse(rows, jnp.ones((4, 16)), weight.shape)
        return opt.step(weight, grad, opt.init(weight))[0]

    assert_same(update(np.int32([50, -1, 99, 51])), weight)
    new = update(np.int32([49, 49, 99, 3]))
    changed = np.flatnonzero(np.any(new != weight, axis=1))
    assert changed.tolist() == [3, 49]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int16])
def test_rows_of_other_integers(dtype):
    opt, weight = mxopt.Adam(), table()
    grad = gradient(weight)
    other = mxopt.RowSparse(np.asarray(grad.indices).astype(dtype), grad.values, grad.shape)
    state = opt.init(weight)
    assert_same(opt.step(weight, other, state), opt.step(weight, grad, state))


def test_a_rule_with_a_product_of_matrices():
    class Mixing(mxopt.SGD):
        def _rule(self, rates, weight, grad, slots):
            return super()._rule(rates, weight, grad @ jnp.ones((16, 16)), slots)

        _row_rule = _rule

    opt, weight = Mixing(learning_rate=0.1, momentum=0.9), table()
    step, *args = one_update(opt, weight)
    assert not marked(step, *args)
    touched = np.flatnonzero(np.any(opt.step(*args)[0] != weight, axis=1))
    assert touched.tolist() == [1, 4]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("caller", ["jit", "scan", "no arguments"])
def test_rows_may_be_many_constants(caller, ordered):
    """XLA aborts the process where a kernel's loops hold a large constant."""
    opt, weight = mxopt.Adam(), table(20_000)
    rows = np.random.default_rng(2).permutation(20_000)[:9000]
    grad = gradient(weight, np.sort(rows) if ordered else rows)
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


def test_under_vmap_what_is_not_mapped_stays_one_for_all():
    opt, table = make(mxopt.LARS), jnp.ones((50, 16))
    state, rows = opt.init(table), jnp.array([1, 2])

    def stepped(values):
        new, after = opt.step(table, mxopt.RowSparse(rows, values, (50, 16)), state)
        return new, after.slots.groups[0].last_lr

    values = jnp.stack([jnp.full((2, 16), x) for x in (1.0, 2.0)])
    new, last = jax.vmap(stepped, out_axes=(0, None))(values)
    assert last == pytest.approx(0.05)
    for one, alone in zip(new, values, strict=True):
        assert_near(one, stepped(alone)[0], 4)
