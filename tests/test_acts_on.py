"""What a rule says it acts on is true, and the engine takes no other liberty with a weight."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import CATALOGUE, ROWS, Row
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from samples import assert_near, assert_same, is_real, make

import jaxmxopt as mxopt
from jaxmxopt import checkpoint, sharding
from jaxmxopt.algorithm import OptimizerDef

SHAPE = (4, 6, 5)
MATRIX = (4, 6)
# These need more than an element, or noise for all of a weight.
NOT_BY_ELEMENT = {"GroupAdaGrad": "rows", "LAMB": "whole", "LANS": "whole", "LBSGD": "whole"}
NOT_BY_ELEMENT |= {"SGLD": "whole", "Adafactor": "whole", "Muon": "matrices", "SOAP": "matrices"}


class Piece(NamedTuple):
    """A weight, or a part of one, and what goes with it."""

    weight: Any
    grad: Any
    slots: Any


Change = Callable[[Any], Any]


def draw(seed: int, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def numbers(tree: Any) -> Any:
    """A pytree in which Python's real numbers are arrays in float32, as rules are given them."""
    cast = lambda leaf: jnp.float32(leaf) if isinstance(leaf, float) else leaf  # noqa: E731
    return jax.tree.map(cast, tree)


def rates_of(opt: Any, piece: Piece, t: int) -> Any:
    """The rates of an update, with what they take from the whole weight."""
    wd = 0.0 if isinstance(opt, mxopt.GroupAdaGrad) else 0.03
    return numbers(opt).adapt(numbers(opt.rates(0.05, wd, t)), piece.weight, piece.grad)


def moved(opt: Any, seed: int, shape: tuple[int, ...]) -> Piece:
    """A weight with slots that two updates have made."""
    weight = draw(seed, shape)
    slots = opt.create_state("w", weight).slots
    for t in (1, 2):
        piece = Piece(weight, draw(seed + t, shape), slots)
        weight, slots = updated(opt, rates_of(opt, piece, t), piece)
    return Piece(weight, draw(seed + 9, shape), slots)


def changed(change: Change, tree: Any, shape: tuple[int, ...]) -> Any:
    """Changes what has the shape of the weight, all of it alike; scalars are shared."""
    return jax.tree.map(lambda leaf: change(leaf) if leaf.shape == shape else leaf, tree)


def updated(opt: Any, rates: Any, piece: Piece) -> tuple[Any, Any]:
    return numbers(opt).rule(rates, *piece)


def assert_commutes(opt: Any, piece: Piece, change: Change) -> None:
    """A rule for a changed weight gives what the change makes of its results."""
    rates, shape = rates_of(opt, piece, 3), piece.weight.shape
    expected = changed(change, updated(opt, rates, piece), shape)
    assert_near(updated(opt, rates, changed(change, piece, shape)), expected, 2)


def flipped(leaf: Any) -> Any:
    """The same elements in another order."""
    order = np.random.default_rng(0).permutation(leaf.size)
    return leaf.reshape(-1)[order].reshape(leaf.shape)


BY_ELEMENT: dict[str, Change] = {
    "cut along the first axis": lambda leaf: leaf[1:3],
    "cut along the second axis": lambda leaf: leaf[:, 2:],
    "cut along the last axis": lambda leaf: leaf[..., :1],
    "empty": lambda leaf: leaf[:, :0],
    "flat": lambda leaf: leaf.reshape(-1),
    "two axes merged": lambda leaf: leaf.reshape(4, 30),
    "axes of one": lambda leaf: leaf.reshape(1, 4, 6, 1, 5),
    "axes permuted": lambda leaf: leaf.transpose(2, 0, 1),
    "elements permuted": flipped,
}
BY_ROW: dict[str, Change] = {
    "the first rows": lambda leaf: leaf[:1],
    "the others": lambda leaf: leaf[1:],
    "some": lambda leaf: leaf[np.array([2, 0])],
    "one twice": lambda leaf: leaf[np.array([3, 3, 1])],
    "none": lambda leaf: leaf[:0],
}


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_an_algorithm_says_what_it_acts_on(row: Row) -> None:
    assert row.cls.acts_on == NOT_BY_ELEMENT.get(row.name, "elements")
    # What sees the whole weight has no lazy rows.
    assert row.whole == (row.cls.acts_on in ("whole", "matrices"))


ELEMENTS = [row for row in CATALOGUE if row.name not in NOT_BY_ELEMENT]
elements = pytest.mark.parametrize("row", ELEMENTS, ids=lambda row: row.name)


@elements
def test_a_rule_by_element_gives_the_same_for_any_part_in_any_shape(row: Row) -> None:
    opt = make(row.cls)
    piece = moved(opt, 0, SHAPE)
    for change in BY_ELEMENT.values():
        assert_commutes(opt, piece, change)


@pytest.mark.parametrize(
    ("row", "setting"),
    [
        pytest.param(row, given, id=f"{row.name}-{number}")
        for row in ELEMENTS
        for number, given in enumerate(row.settings)
    ],
)
def test_a_rule_by_element_is_one_with_every_setting(row: Row, setting: Any) -> None:
    opt = row.cls(learning_rate=0.05, wd=0.03, **setting)
    piece = moved(opt, 0, SHAPE)
    for change in ("cut along the second axis", "elements permuted"):
        assert_commutes(opt, piece, BY_ELEMENT[change])


@elements
def test_a_rule_by_element_gives_the_same_for_weights_in_a_stack(row: Row) -> None:
    opt = make(row.cls)
    first, second = moved(opt, 0, SHAPE), moved(opt, 20, SHAPE)
    rates = rates_of(opt, first, 3)

    def stack(one: Any, two: Any) -> Any:
        # A scalar is shared where it is equal: counts, and what comes of rates.
        return jnp.stack([one, two]) if one.shape == SHAPE else one

    both = updated(opt, rates, jax.tree.map(stack, first, second))
    for number, piece in enumerate((first, second)):
        part = jax.tree.map(lambda leaf: leaf[number] if leaf.ndim == 4 else leaf, both)  # noqa: B023
        expected = updated(opt, rates, piece._replace(slots=with_scalars(piece, first)))
        assert_near(part, expected, 2)


def with_scalars(piece: Piece, other: Piece) -> Any:
    """The slots of a piece with the scalars of another."""
    return jax.tree.map(
        lambda mine, others: mine if mine.shape == SHAPE else others, piece.slots, other.slots
    )


def rows_changed(change: Change, tree: Any) -> Any:
    """Changes everything that has the rows of the weight."""
    per_row = lambda leaf: leaf.ndim > 0 and leaf.shape[0] == MATRIX[0]  # noqa: E731
    return jax.tree.map(lambda leaf: change(leaf) if per_row(leaf) else leaf, tree)


ROWWISE = [row for row in CATALOGUE if NOT_BY_ELEMENT.get(row.name, "rows") == "rows"]


@pytest.mark.parametrize("row", ROWWISE, ids=lambda row: row.name)
def test_a_rule_by_row_gives_the_same_for_any_rows(row: Row) -> None:
    opt = make(row.cls)
    piece = moved(opt, 0, MATRIX)
    rates = rates_of(opt, piece, 3)
    new = updated(opt, rates, piece)
    for change in BY_ROW.values():
        part = rows_changed(change, piece)
        assert_near(updated(opt, rates, part), rows_changed(change, new), 2)


NEEDED = {
    "Adafactor": (make(mxopt.Adafactor), np.s_[::-1]),
    "Muon": (make(mxopt.Muon), np.s_[:2]),
    "SOAP": (make(mxopt.SOAP, max_precondition_dim=9), np.s_[::-1]),
    "GroupAdaGrad": (make(mxopt.GroupAdaGrad), np.s_[:, :2]),
    "LAMB": (make(mxopt.LAMB), np.s_[:2]),
    "LANS": (make(mxopt.LANS), np.s_[:2]),
    "LBSGD": (make(mxopt.LBSGD, warmup_strategy="lars", batch_scale=1), np.s_[:2]),
    "SGLD": (make(mxopt.SGLD), np.s_[2:]),
}


def test_all_that_is_not_by_element_is_tried_below() -> None:
    assert NEEDED.keys() == NOT_BY_ELEMENT.keys()


@pytest.mark.parametrize("name", NEEDED)
def test_a_part_of_a_weight_is_updated_otherwise_where_that_is_declared(name: str) -> None:
    """So that no declaration is stricter than it need be."""
    opt, where = NEEDED[name]
    piece = moved(opt, 0, MATRIX)
    whole = updated(opt, rates_of(opt, piece, 3), piece)[0]
    part = changed(lambda leaf: leaf[where], piece, MATRIX)
    alone = updated(opt, rates_of(opt, part, 3), part)[0]
    moves = np.abs(whole[where] - piece.weight[where]).max()
    assert np.abs(alone - whole[where]).max() > 1e-3 * moves


# The engine's side: a rule that said nothing sees its weight as it is.

BETA = 0.5


def centred(grad: Any) -> Any:
    return grad - jnp.mean(grad, axis=tuple(range(1, grad.ndim)), keepdims=True)


def factored_root(row: Any, column: Any) -> Any:
    """The second moment of Adafactor (Shazeer and Stern, 2018), of its first two axes."""
    mean = jnp.mean(row, axis=0, keepdims=True)
    moment = jnp.expand_dims(row / mean, 1) * jnp.expand_dims(column, 0)
    return jnp.sqrt(moment + jnp.float32(1e-6))


class Factors(NamedTuple):
    """A factored second moment: one slot without the second axis, one without the first."""

    row: Any
    column: Any


class Momentum(NamedTuple):
    mom: Any


def centralising(seen: list[Any]) -> Any:
    """Gradients are centred along all axes but the first (Yong et al., 2020)."""

    class Centralised(OptimizerDef):
        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            seen.append((weight.shape, grad.shape))
            return weight - rates.lr * centred(grad), slots

    return Centralised


def factoring(seen: list[Any]) -> Any:
    """A row and a column slot, as Adafactor has them."""

    class Factored(OptimizerDef):
        def slots(self, like: Any) -> Factors:
            others = tuple(range(2, len(like.shape)))
            return Factors(like.zeros(axes=(0, *others)), like.zeros(axes=(1, *others)))

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            seen.append((weight.shape, grad.shape))
            row = BETA * slots.row + (1 - BETA) * jnp.mean(jnp.square(grad), 1)
            column = BETA * slots.column + (1 - BETA) * jnp.mean(jnp.square(grad), 0)
            return weight - rates.lr * grad / factored_root(row, column), Factors(row, column)

    return Factored


def orthogonalising(seen: list[Any]) -> Any:
    """A momentum whose orthogonal part is the step, as of Muon by another way."""

    class Orthogonal(OptimizerDef):
        def slots(self, like: Any) -> Momentum:
            return Momentum(like.zeros())

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            seen.append((weight.shape, grad.shape))
            mom = BETA * slots.mom + grad
            q, r = jnp.linalg.qr(mom)
            signs = jnp.where(jnp.diagonal(r) < 0, jnp.float32(-1), jnp.float32(1))
            return weight - rates.lr * q * jnp.expand_dims(signs, 0), Momentum(mom)

    return Orthogonal


LR = 0.25
Steps = list[np.ndarray]


def plain_centralised(weight: np.ndarray, grads: Steps) -> np.ndarray:
    for grad in grads:
        axes = tuple(range(1, grad.ndim))
        weight = weight - LR * (grad - grad.mean(axes, keepdims=True))
    return weight


def plain_factored(weight: np.ndarray, grads: Steps) -> np.ndarray:
    row, column = 0.0, 0.0
    for grad in grads:
        row = BETA * row + (1 - BETA) * np.mean(grad**2, 1)
        column = BETA * column + (1 - BETA) * np.mean(grad**2, 0)
        moment = np.expand_dims(row / row.mean(0), 1) * np.expand_dims(column, 0)
        weight = weight - LR * grad / np.sqrt(moment + 1e-6)
    return weight


def plain_orthogonal(weight: np.ndarray, grads: Steps) -> np.ndarray:
    mom = 0.0
    for grad in grads:
        mom = BETA * mom + grad
        q, r = np.linalg.qr(mom)
        weight = weight - LR * q * np.where(np.diag(r) < 0, -1, 1)
    return weight


RULES = {
    "centralised": (centralising, plain_centralised, (3, 3, 1, 8)),
    "centralised, large": (centralising, plain_centralised, (8, 3, 3, 250)),
    "factored": (factoring, plain_factored, (8, 5, 3, 3)),
    "factored, square": (factoring, plain_factored, (6, 6)),
    "factored, large": (factoring, plain_factored, (150, 130)),
    "orthogonal": (orthogonalising, plain_orthogonal, (6, 4)),
    "orthogonal, large": (orthogonalising, plain_orthogonal, (160, 120)),
}
STEPS = 3
# As many as share arrays where there are as many of one shape, and some beside them.
MANY = 100


def gradients(shape: Any, seed: int) -> list[Any]:
    return [draw(seed + 1 + step, shape) for step in range(STEPS)]


def by_update(opt: Any, weight: Any, grads: Any, update: Any = None) -> Any:
    state = opt.create_state("w", weight)
    for grad in grads:
        weight, state = (update or opt.update)("w", weight, grad, state)
    return weight


def by_step(opt: Any, weight: Any, grads: Any, step: Any = None) -> Any:
    params, state = {"w": weight}, opt.init({"w": weight})
    for grad in grads:
        params, state = (step or opt.step)(params, {"w": grad}, state)
    return params["w"]


def by_trainer(opt: Any, weight: Any, grads: Any) -> Any:
    trainer = mxopt.Trainer({"w": weight}, opt)
    for grad in grads:
        params = trainer.step({"w": grad}, 1)
    return params["w"]


def by_updater(opt: Any, weight: Any, grads: Any) -> Any:
    updater = mxopt.get_updater(mxopt.Optimizer(opt))
    for grad in grads:
        weight = updater(0, grad, weight)
    return weight


def by_vmap(opt: Any, weight: Any, grads: Any) -> Any:
    """The first of two models."""
    both = lambda leaf: {"w": jnp.stack([leaf, leaf * 2])}  # noqa: E731
    params = both(weight)
    state = jax.vmap(opt.init)(params)
    for grad in grads:
        params, state = jax.vmap(opt.step)(params, both(grad), state)
    return params["w"][0]


def by_scan(opt: Any, weight: Any, grads: Any) -> Any:
    body = lambda now, grad: (opt.update("w", now[0], grad, now[1]), None)  # noqa: E731
    return jax.lax.scan(body, (weight, opt.create_state("w", weight)), jnp.stack(grads))[0][0]


def odd(shape: Any) -> Any:
    """The shape of the one weight that is another."""
    return (shape[0] + 1, *shape[1:])


def in_a_tree(count: int, opt: Any, weight: Any, grads: Any) -> Any:
    """One of many weights of one shape."""
    names = [f"layer{number}" for number in range(count)]
    params = {name: draw(50 + n, weight.shape) for n, name in enumerate(names)}
    params |= {"layer7": jnp.copy(weight), "odd": draw(3, odd(weight.shape))}
    state = opt.init(params)
    for grad in grads:
        each = {**dict.fromkeys(names, grad), "odd": params["odd"] * 0.5 + 1}
        params, state = opt.step(params, each, state, donate=True)
    return params["layer7"]


def in_wrappers(opt: Any, weight: Any, grads: Any) -> Any:
    wrapped = mxopt.EMA(mxopt.Accumulate(mxopt.Groups({"w": opt}), every=1))
    return by_step(wrapped, weight, grads)


def in_jit(function: Any) -> Any:
    return lambda opt, weight, grads: jax.jit(functools.partial(function, opt))(weight, grads)


WAYS: dict[str, Callable[..., Any]] = {
    "update": by_update,
    "update, jit": lambda opt, w, g: by_update(opt, w, g, jax.jit(opt.update, static_argnums=0)),
    "step": by_step,
    "step, jit": lambda opt, w, g: by_step(opt, w, g, jax.jit(opt.step)),
    "step, donated": lambda opt, w, g: by_step(
        opt, jnp.copy(w), g, functools.partial(opt.step, donate=True)
    ),
    "step, where": lambda opt, w, g: by_step(
        opt, w, g, functools.partial(opt.step, where=jnp.bool_(True))
    ),
    "all steps in a jit": in_jit(by_step),
    "scan": by_scan,
    "vmap": by_vmap,
    "vmap, jit": in_jit(by_vmap),
    "two in a tree": functools.partial(in_a_tree, 8),
    "many in a tree": functools.partial(in_a_tree, MANY),
    "wrappers": in_wrappers,
    "Trainer": by_trainer,
    "Updater": by_updater,
}
FOR_LARGE = ("update", "step, jit", "step, donated", "vmap, jit", "two in a tree")


@pytest.mark.parametrize(
    ("rule", "way"),
    [(rule, way) for rule in RULES for way in WAYS if "large" not in rule or way in FOR_LARGE],
)
def test_a_rule_that_says_nothing_sees_a_weight_as_it_is(rule: str, way: str) -> None:
    written, plain, shape = RULES[rule]
    seen = list[Any]()
    opt = written(seen)(learning_rate=LR)
    weight, grads = draw(0, shape), gradients(shape, 10)
    new = WAYS[way](opt, weight, grads)
    expected = plain(np.float64(weight), [np.float64(grad) for grad in grads])
    np.testing.assert_allclose(new, expected, rtol=2e-4, atol=2e-4)
    allowed = {(shape, shape), (odd(shape), odd(shape))}
    assert (shape, shape) in seen
    assert set(seen) <= allowed


@pytest.mark.parametrize("rule", ["centralised", "factored", "orthogonal"])
def test_a_rule_that_says_nothing_sees_all_of_a_row_sparse_gradient(rule: str) -> None:
    written, _, shape = RULES[rule]
    opt = written([])(learning_rate=LR)
    rows = mxopt.RowSparse(np.int32([1, 0]), draw(1, (2, *shape[1:])), shape)
    weight = draw(0, shape)
    new = by_update(opt, weight, [rows])
    assert_near(new, by_update(opt, weight, [rows.todense()]), 4)


@pytest.mark.parametrize(
    ("shape", "spec", "row", "column"),
    [
        ((8, 8), P("x"), P("x"), P()),
        ((8, 8), P(None, "x"), P(), P("x")),
        ((8, 4, 2, 2), P(None, "x"), P(), P("x")),
    ],
    ids=["square, rows", "square, columns", "columns"],
)
def test_a_factor_lies_as_the_axis_that_it_has(
    shape: Any, spec: Any, row: Any, column: Any
) -> None:
    """A square weight's column slot lies as its columns."""
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    opt = factoring([])(learning_rate=LR)
    weight = jax.device_put(draw(0, shape), NamedSharding(mesh, spec))
    slots = opt.create_state("w", weight).slots
    places = sharding.like_weights(opt, {"w": weight})
    state = jax.jit(opt.init, out_shardings=places)({"w": weight})
    for found in (slots, state.unpack({"w": weight})["w"].slots):
        for slot, wanted in ((found.row, row), (found.column, column)):
            assert slot.sharding.is_equivalent_to(NamedSharding(mesh, wanted), slot.ndim)
    expected = by_step(opt, draw(0, shape), gradients(shape, 10))
    assert_near(np.asarray(by_step(opt, weight, gradients(shape, 10))), np.asarray(expected), 64)


# Slots of any name.


class Named(NamedTuple):
    """Fields that are words of the engine's own, here and there."""

    inner: Any
    parts: Any
    unpacked: Any
    per_weight: Any


class Naming(OptimizerDef):
    acts_on = "elements"

    def slots(self, like: Any) -> Named:
        return Named(like.zeros(), like.full(2.0), like.full(1.0, axes=()), like.copy())

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        new = weight - rates.lr * (grad + slots.inner) * slots.unpacked
        count = slots.unpacked + jnp.asarray(1, slots.unpacked.dtype)
        return new, Named(slots.inner + grad, slots.parts * grad, count, weight)


def named_tree(seed: int = 0, count: int = 3) -> Any:
    shapes = {f"w{number}": (8, 4) for number in range(count)} | {"b": (3,)}
    return {name: draw(seed + n, shape) for n, (name, shape) in enumerate(shapes.items())}


def trained(opt: Any, count: int = 3, steps: int = 2) -> tuple[Any, Any]:
    params = named_tree(0, count)
    state = opt.init(params)
    for step in range(1, steps + 1):
        params, state = opt.step(params, named_tree(100 * step, count), state)
    return params, state


NAMED: dict[str, Callable[[], Any]] = {
    "alone": lambda: Naming(learning_rate=LR),
    "EMA": lambda: mxopt.EMA(Naming(learning_rate=LR), decay=0.5),
    "Accumulate": lambda: mxopt.Accumulate(Naming(learning_rate=LR), every=2),
    "ClipGlobalNorm": lambda: mxopt.ClipGlobalNorm(Naming(learning_rate=LR), max_norm=1.0),
    "Groups": lambda: mxopt.Groups({"b": mxopt.SGD(), "*": Naming(learning_rate=LR)}),
    "nested": lambda: mxopt.EMA(
        mxopt.Accumulate(mxopt.Groups({"b": None, "*": Naming(learning_rate=LR)}), every=2)
    ),
}
named = pytest.mark.parametrize("wrapped", NAMED)


@pytest.mark.parametrize("count", [3, MANY])
def test_slots_may_have_any_name(count: int) -> None:
    params, state = trained(NAMED["alone"](), count)
    weight, total, factor = np.float64(named_tree(0, count)["w1"]), 0.0, 1.0
    for step in (1, 2):
        grad = np.float64(named_tree(100 * step, count)["w1"])
        weight, before = weight - LR * (grad + total) * factor, weight
        total, factor = total + grad, factor + 1
    np.testing.assert_allclose(params["w1"], weight, rtol=1e-5, atol=1e-5)
    slots = state.unpack(params)["w1"].slots
    assert type(slots) is Named
    np.testing.assert_allclose(slots.inner, total, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(slots.per_weight, before, rtol=1e-5, atol=1e-5)
    assert slots.unpacked == 3


@named
def test_states_with_slots_of_any_name_are_unpacked_and_packed(wrapped: str) -> None:
    opt = NAMED[wrapped]()
    params, state = trained(opt)
    again = opt.pack(params, state.unpack(params))
    grads = named_tree(7)
    assert_same(opt.step(params, grads, again), opt.step(params, grads, state))


@named
def test_states_with_slots_of_any_name_go_through_files(wrapped: str, tmp_path: Path) -> None:
    opt = NAMED[wrapped]()
    params, state = trained(opt)
    checkpoint.save(tmp_path / "state.npz", (params, state), opt=opt, params=params)
    blank = jax.tree.map(jnp.zeros_like, (params, state))
    loaded = checkpoint.load(tmp_path / "state.npz", blank, opt=opt, params=params)
    assert_same(loaded, (params, state))


@named
def test_states_with_slots_of_any_name_are_divided(wrapped: str) -> None:
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    opt, params = NAMED[wrapped](), named_tree()
    params = jax.device_put(params, NamedSharding(mesh, P()))
    places = sharding.divided(opt, params)
    state = jax.jit(opt.init, out_shardings=places)(params)
    large = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (8, 4)]
    assert large
    for leaf in large:
        assert leaf.sharding.shard_shape(leaf.shape) == (2, 4)
    step = jax.jit(opt.step, out_shardings=(None, places))
    new, _ = step(params, named_tree(100), state)
    expected, _ = trained(opt, steps=1)
    assert_near(jax.tree.map(np.asarray, new), jax.tree.map(np.asarray, expected), 8)


@named
def test_slots_of_any_name_are_left_where_a_step_is_skipped(wrapped: str) -> None:
    opt = NAMED[wrapped]()
    params, state = trained(opt)
    assert_same(opt.step(params, named_tree(7), state, where=False), (params, state))


def test_slots_of_any_name_with_masters() -> None:
    opt = Naming(learning_rate=LR, multi_precision=True)
    params = {"w": draw(0, (8, 4), jnp.bfloat16)}
    new, state = opt.step(params, params, opt.init(params))
    slots = state.unpack(params)["w"].slots
    assert {leaf.dtype for leaf in slots if is_real(leaf)} == {np.dtype("float32")}
    assert new["w"].dtype == jnp.bfloat16


def test_a_rule_by_row_sees_rows_and_a_rule_by_element_any_part() -> None:
    """A lazy update gives a rule the rows of a gradient alone."""
    seen = list[Any]()

    class Rows(OptimizerDef):
        acts_on = "rows"

        def slots(self, like: Any) -> Momentum:
            return Momentum(like.zeros(axes=(0, None)))

        def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
            seen.append(weight.shape[1:])
            size = jnp.sum(jnp.square(grad), axis=1, keepdims=True)
            return weight - rates.lr * grad, Momentum(slots.mom + size)

    opt = Rows(learning_rate=LR, lazy_update=True)
    weight, shape = draw(0, (40, 6)), (40, 6)
    rows = mxopt.RowSparse(np.int32([30, 4]), draw(1, (2, 6)), shape)
    new, state = opt.update("w", weight, rows, opt.create_state("w", weight))
    assert set(seen) == {(6,)}
    assert state.slots.mom.shape == (40, 1)
    assert np.flatnonzero(state.slots.mom).tolist() == [4, 30]
    assert np.flatnonzero(np.any(new != weight, axis=1)).tolist() == [4, 30]
    dense, _ = opt.update("w", weight, rows.todense(), opt.create_state("w", weight))
    assert_near(new, dense)


def test_lazy_rows_are_refused_to_a_rule_of_the_whole_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="lazy_update=True changes nothing"):
        centralising([])(lazy_update=True)
    assert ROWS["LAMB"].whole
