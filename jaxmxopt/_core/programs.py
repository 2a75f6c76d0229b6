"""The compiled functions behind every update: two kinds, and one policy of keeping them.

A definition reaches a compiled function as its structure, which is static, and its numbers, which
are arguments. So a new value of a number compiles nothing, save where it is another structure: None
or a number, a Python number or an array, a decay of 0 or not, a momentum of 0 or not.

Programs of one structure are shared by all definitions that have it. A definition that holds a
function, as one from optax does, keeps its programs itself, and they go when it does.
"""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxmxopt._core.checks import check_grads, check_numbers, check_state, check_where, tree_of
from jaxmxopt._core.config import Config
from jaxmxopt._core.engine import Given, Rule, advance
from jaxmxopt._core.layout import Layout, Packed
from jaxmxopt._core.names import Tree
from jaxmxopt._core.rates import opened
from jaxmxopt._core.state import unpacked

__all__ = [
    "double_precision",
    "functions_in",
    "hand_on",
    "precise",
    "put_together",
    "shared_by",
    "step",
    "step_with_rates",
    "taken_apart",
]

_KEPT = "_programs"


def double_precision() -> bool:
    """True if JAX has 64-bit types."""
    return bool(jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]


def precise(numbers: Any) -> np.ndarray:
    """Return numbers of the host as an array, in the widest precision that JAX has."""
    return np.array(numbers, np.float64 if double_precision() else np.float32)


def taken_apart(tree: Any) -> tuple[Any, tuple[np.ndarray, tuple[Any, ...]]]:
    """Return the structure of a pytree, and its numbers: a vector of Python's, and the arrays."""
    leaves, structure = jax.tree.flatten(tree)
    plain = tuple(type(leaf) is float for leaf in leaves)
    vector = precise([leaf for leaf in leaves if type(leaf) is float])
    return (structure, plain), (vector, tuple(x for x in leaves if type(x) is not float))


def put_together(structure: Any, numbers: Any) -> Any:
    """Return what was taken apart, its numbers hidden from XLA's constant folding.

    Folded into a kernel, a constant is rounded elsewhere than an argument would be: with the
    barrier both give the same bits.
    """
    tree, plain = structure
    vector, arrays = lax.optimization_barrier(numbers)
    known = iter([lax.index_in_dim(vector, i, keepdims=False) for i in range(vector.shape[0])])
    others = iter(arrays)
    made = tree.unflatten([next(known if is_plain else others) for is_plain in plain])
    check_numbers(made)
    return made


def shared_by(
    owner: Any, compiled: Any, factory: Callable[..., Any], *key: Hashable
) -> Callable[..., Any]:
    """Return `factory(*key)`, made once for all definitions that share it.

    Args:
        owner: the definition, which keeps programs that no others share.
        compiled: the definition as it is compiled.
        factory: makes a jitted function of the structure of a definition, and more; under
            `lru_cache`.
        key: the factory's arguments.
    """
    if not any(True for _ in functions_in(compiled)):
        return factory(*key)
    kept = owner.__dict__.setdefault(_KEPT, {})
    if (factory, key) not in kept:
        kept[factory, key] = factory.__wrapped__(*key)  # pyright: ignore[reportFunctionMemberAccess]
    return kept[factory, key]


def hand_on(old: Any, new: Any) -> Any:
    """Let a definition share what another has compiled, where both hold the same functions."""
    kept = old.__dict__.get(_KEPT)
    if kept is not None and list(map(id, functions_in(old))) == list(map(id, functions_in(new))):
        new.__dict__[_KEPT] = kept
    return new


def functions_in(value: Any) -> Iterator[Any]:
    """Yield the functions, and objects that are called as such, in a record of hyperparameters."""
    if isinstance(value, Config) and value._is_value:
        for name in value._described:
            yield from functions_in(value.__dict__[name])
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from functions_in(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from functions_in(part)
    elif callable(value):
        yield value


@functools.lru_cache(maxsize=1024)
def step(
    structure: Any, names: tuple[Hashable, ...] | None, donate: bool, lenient: bool, apart: bool
) -> Callable[..., tuple[Any, Any]]:
    """Return the jitted update by a definition of this structure.

    Args:
        structure: of the definition.
        names: None for a tree, whose paths are the names; else of one weight, or of several.
        donate: reuse the buffers of the weights and their state.
        lenient: see `Given`.
        apart: True if weights, gradients and states come as lists, with a state for each weight.
    """

    def run(numbers: Any, params: Any, state: Any, grads: Any, where: Any) -> Any:
        opt = put_together(structure, numbers)
        if apart:
            tree = Tree(names or (), params, jax.tree.structure(params))
            state = opt._packed(tree, state)
        else:
            tree = tree_of(params) if names is None else Tree.of_one(names[0], params)
        ok = check_where(where)
        check_state(state)
        read = [opt._reads(*both) for both in zip(tree.names, tree.leaves, strict=True)]
        grads = check_grads(tree, grads, read) if not apart else grads
        # What is not read may hold anything: it reaches no norm and no sum.
        grads = [grad if reads else None for grad, reads in zip(grads, read, strict=True)]
        given = Given(grads, lenient=lenient)

        def advanced(weights: list[Any], state: Any) -> tuple[list[Any], Any]:
            return opt._advance(tree._replace(leaves=weights), state, given)

        if ok is None:
            weights, state = advanced(tree.leaves, state)
        else:
            # A selection at the end would have XLA keep the old arrays beside the new ones.
            weights, state = lax.cond(ok, advanced, lambda *same: same, tree.leaves, state)
        return tree.like(weights), unpacked(state, tree) if apart else state

    # What is never read, such as a half-precision weight beside its master, is given away too.
    return jax.jit(run, donate_argnums=(1, 2) if donate else (), keep_unused=donate)


class HostRates:
    """Rates that the host has computed: a table with a row for every weight.

    Args:
        structure: of the sealed rates of a weight.
        table: their numbers.
        alike: a number for each weight, the same for weights with the same rates. Without it
            each weight has rates of its own.
    """

    def __init__(self, structure: Any, table: jax.Array, alike: Sequence[int]) -> None:
        self._structure, self._table, self._alike = structure, table, alike
        self._known: dict[int, Any] = {}

    def of(self, members: Sequence[int], dtype: Any) -> tuple[Any, int | None]:
        """Return the sealed rates of some weights, and the axis along which they differ."""
        del dtype
        if len(members) == 1:
            number = members[0]
            kind = self._alike[number] if self._alike else number
            if kind not in self._known:
                self._known[kind] = self._structure.unflatten(list(self._table[number]))
            return self._known[kind], None
        columns = self._table[np.asarray(members)].T
        return self._structure.unflatten(list(columns)), 0


@functools.lru_cache(maxsize=1024)
def step_with_rates(
    structure: Any,
    rates: Any,
    layout: Layout,
    names: tuple[Hashable, ...],
    donate: bool,
    row_rule: Rule | None,
    alike: tuple[int, ...] = (),
) -> Callable[..., tuple[list[Any], tuple[Any, ...], tuple[Any, ...]]]:
    """Return the jitted update of weights by an algorithm whose rates the host computes.

    Its first argument is a vector: the numbers of the algorithm, and the rates of weight after
    weight. Slots and masters come as the groups of the layout. Errors name a weight by its number.

    Args:
        structure: of the algorithm, all of whose numbers are Python's.
        rates: the structure of its sealed rates.
        layout: of the slots.
        names: of the weights, as far as the algorithm asks for them.
        donate: reuse the buffers of the weights and their states.
        row_rule: what takes the place of the rule for row-sparse gradients.
        alike: a number for each weight, the same for weights with the same rates; () if that is
            not asked for.
    """
    count = sum(structure[1])

    def run(vector: Any, weights: Any, slots: Any, masters: Any, grads: Any) -> Any:
        opt = put_together(structure, (vector[:count], ()))
        table = lax.optimization_barrier(vector[count:].reshape(len(weights), -1))
        tree = Tree(range(len(weights)), weights, jax.tree.structure(weights))
        packed = Packed(slots, layout), Packed(masters, layout)
        given = Given(grads)
        opened(opt)._check_weights(tree, *packed, given)
        named = tree._replace(names=names)
        new, after, after_masters = advance(
            opt, HostRates(rates, table, alike), named, *packed, given, row_rule
        )
        return new, after.groups, after_masters.groups

    return jax.jit(run, donate_argnums=(1, 2, 3) if donate else (), keep_unused=donate)
