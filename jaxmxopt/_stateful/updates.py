"""The ways to update weights: by an algorithm, by a wrapper, or by a subclass's `update`.

Of the stateful layer this module alone knows how the core checks, compiles and lays out an update.
"""

import contextlib
import inspect
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmxopt._algorithms import SGD
from jaxmxopt._core import programs
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.checks import (
    MismatchError,
    WrongKindError,
    check_grads,
    check_pair,
    check_rates,
    explained,
    unusable,
)
from jaxmxopt._core.config import FrozenMap
from jaxmxopt._core.copies import moved, private
from jaxmxopt._core.definition import Arrays
from jaxmxopt._core.gradients import multiplied as _multiplied
from jaxmxopt._core.layout import Layout, Packed
from jaxmxopt._core.names import Multipliers, Tree
from jaxmxopt._core.rates import sealed
from jaxmxopt._core.slots import Like, as_now, kinds_of
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import masters
from jaxmxopt._operators.rows import ROW_RULES
from jaxmxopt._stateful.conventions import AGGREGATED, COUNTS_TOGETHER
from jaxmxopt._stateful.filling import filled
from jaxmxopt._stateful.hyperparameters import Undefined
from jaxmxopt._stateful.mxnet_states import slots_and_master, slots_from_mxnet, with_master
from jaxmxopt._wrappers.accumulate import Accumulate
from jaxmxopt._wrappers.around import Around
from jaxmxopt._wrappers.groups import Frozen, GroupMap, Groups

__all__ = [
    "RATES",
    "TreeStates",
    "accepted",
    "adds_up",
    "aggregation",
    "calls_an_update",
    "check_indices",
    "check_lists",
    "check_pairs",
    "decaying",
    "first_state",
    "full_weight",
    "has_masters",
    "leaves_of",
    "multiplied",
    "named_state",
    "prepared",
    "refuse_traced",
    "scales_apart",
    "updates_of",
]

# What MXNet's optimizers ask for counts and rates, which a class or an instance may replace.
RATES = ("_get_lr", "_get_lrs", "_get_wd", "_get_wds", "_update_count")
# The learning rate and decay of a weight, multipliers in them, and its count.
Counted = tuple[float, float, int]
# Fields that the rates of the host already hold, or that only say where they come from.
_RESOLVED: dict[str, Any] = {
    "learning_rate": None,
    "lr_scheduler": None,
    "wd": None,
    "begin_num_update": 0,
    "multi_precision": False,
    "param_idx2name": None,
    "lr_mult": None,
    "wd_mult": None,
}


# What a definition says of itself.


def decaying(definition: Any) -> tuple[str, ...]:
    """Return the endings of names that decay by default where `param_idx2name` gives names."""
    return (definition if isinstance(definition, OptimizerDef) else OptimizerDef).names.decay


def calls_an_update(definition: Any) -> int:
    """Return how many calls an update takes; of several groups the fewest."""
    if isinstance(definition, Groups):
        return min(map(calls_an_update, definition.groups.values()))
    if isinstance(definition, Around):
        own = definition.every if isinstance(definition, Accumulate) else 1
        return own * calls_an_update(definition.definition)
    return 1


def adds_up(optimizer: Any) -> bool:
    """True if gradients of several calls make an update."""
    return any(isinstance(part, Accumulate) for part in optimizer._parts)


def scales_apart(optimizer: Any) -> bool:
    """True if one `rescale_grad` cannot stand for all: gradients add up, or parts have others."""
    scales = {vars(part).get("rescale_grad") for part in optimizer._parts} - {None}
    return adds_up(optimizer) or len(scales) > 1


# States of one weight.


def first_state(definition: Any, index: Hashable, weight: Any) -> Any:
    """Return the first state of one weight, without a master; None where there is no algorithm."""
    if type(definition) is Undefined:
        return None
    if not isinstance(definition, OptimizerDef):
        return definition.create_state(index, weight)
    tree = Tree.of_one(index, weight)
    return definition._first_state("create_state", tree, masters=False).slots


def full_weight(definition: OptimizerDef, index: Hashable, weight: Any) -> tuple[Any, Any]:
    """Return the master that a weight is to have, or the weight; and the master or None."""
    weight = jnp.asarray(weight) if isinstance(weight, float) else weight
    call = f"{type(definition).__name__}.create_state_multi_precision"
    try:
        master = definition._first_master(index, weight, Arrays())
    except (MismatchError, WrongKindError) as error:
        raise explained(call, error, index) from None
    return (weight if master is None else master), master


def named_state(optimizer: Any, call: str, index: Hashable, weight: Any, state: Any) -> Any:
    """Return a state with the names of the algorithm, also where it is given as MXNet's."""
    algorithm, slots = optimizer._definition, slots_and_master(state)[0]
    if type(algorithm) is Undefined or not hasattr(weight, "dtype"):
        return state
    # A tuple is of our form where it is empty, or where there is no NamedTuple.
    kind, kinds = type(slots), kinds_of(algorithm, Like(weight.shape, weight.dtype, index))
    if kind in kinds and (kind is not tuple or not slots or kinds == {tuple}):
        return state
    renamed = as_now(algorithm, Like(weight.shape, weight.dtype, index), slots)
    if renamed is not slots:
        return with_master(renamed, slots_and_master(state)[1])
    where = f"{type(optimizer).__name__}.{call}({index!r})"
    return slots_from_mxnet(where, algorithm, index, weight, state)


class TreeStates(NamedTuple):
    """The states of the weights of a tree; those of equal small weights may be stacked.

    Attributes:
        names: of the weights.
        slots: of each weight, or its state where that is not of an algorithm.
        masters: of each weight, None where it has none.
        whole: True if there is one state, in `slots`, of the tree as a whole.
    """

    names: Sequence[str]
    slots: Packed
    masters: Packed
    whole: bool = False

    @classmethod
    def apart(cls, names: Sequence[str], states: Sequence[Any]) -> "TreeStates":
        """Keep states as they are, none stacked."""
        layout = _apart(len(states))
        return cls(names, layout.pack(states), layout.pack([None] * len(states)))

    @classmethod
    def of_whole(cls, names: Sequence[str], state: Any) -> "TreeStates":
        """Keep the state of a tree as a whole."""
        return cls.apart(names, [state])._replace(whole=True)

    def by_name(self) -> dict[str, Any]:
        """Return the state of each weight, or under `""` that of the whole tree."""
        states = map(with_master, self.slots.unpack(), self.masters.unpack())
        return dict(zip(("",) if self.whole else self.names, states, strict=True))


def has_masters(params: Any, state: Any) -> bool:
    """True if a state of a whole tree has masters."""
    return any(leaf is not None for leaf in masters(Tree.of(params), state))


def leaves_of(call: str, tree: Any, names: Sequence[str], grads: Any) -> list[Any]:
    """Return the gradients in the order of the weights of a tree, None among them."""
    try:
        return tree.flatten_up_to(grads)
    except ValueError:
        pass
    try:
        return check_grads(Tree(names, [], tree), grads)
    except MismatchError as error:
        raise explained(call, error) from None


multiplied = jax.jit(_multiplied)


def _apart(count: int) -> Layout:
    return Layout(tuple((number,) for number in range(count)))


# Ways of updating.


def prepared(optimizer: Any) -> "Updates":
    """Return how the definition of an optimizer updates, as its attributes stand now.

    Raises:
        NotImplementedError: the optimizer has no definition.
    """
    found = optimizer._prepared
    if found is None:
        definition = optimizer._definition
        if type(definition) is Undefined:
            raise NotImplementedError(
                f"{type(optimizer).__name__} must define update(index, weight, grad, state)."
            )
        kind = _ByAlgorithm if isinstance(definition, OptimizerDef) else _ByWrapper
        vars(optimizer)["_prepared"] = found = kind(optimizer)
    return found


def updates_of(optimizer: Any) -> "Updates":
    """Return how an optimizer updates: by the `update` of its class, or by its definition."""
    return _BY_CALLS if optimizer._own_update else prepared(optimizer)


class Updates:
    """A way of updating one weight, a list of weights, and a tree of them."""

    def filled(self, grads: Sequence[Any]) -> Sequence[Any]:
        """Return gradients as updates take them, so that few programs serve any number of rows."""
        return filled(grads)

    def one(self, optimizer: Any, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        """Return the new weight and state of one weight."""
        raise NotImplementedError

    def several(
        self, optimizer: Any, indices: list[Any], weights: Any, grads: Any, states: Any
    ) -> tuple[list[Any], list[Any]]:
        """Return the new weights and states of a list of weights."""
        raise NotImplementedError

    def first(self, optimizer: Any, names: Sequence[str], weights: Any, params: Any) -> TreeStates:
        """Return the first states of the weights of a tree."""
        del params
        create = optimizer.create_state_multi_precision
        states = [create(name, weight) for name, weight in zip(names, weights, strict=True)]
        return self.laid_out(optimizer, names, weights, states)

    def laid_out(
        self, optimizer: Any, names: Sequence[str], weights: Any, states: Sequence[Any]
    ) -> TreeStates:
        """Return states of the weights of a tree as `step` takes them."""
        del optimizer, weights
        return TreeStates.apart(names, states)

    def step(
        self, optimizer: Any, call: str, tree: Any, weights: Any, grads: Any, states: TreeStates
    ) -> tuple[list[Any], TreeStates]:
        """Update a tree; weights whose gradient is None stay.

        Args:
            optimizer: whose counts go up.
            call: for errors.
            tree: the structure.
            weights: the leaves, whose buffers may be reused.
            grads: in the order of the weights.
            states: from `first` or `laid_out`.
        """
        fresh = [number for number, grad in enumerate(grads) if grad is not None]
        names, kept = states.names, states.slots.unpack()
        chosen = ([given[n] for n in fresh] for given in (names, weights, grads, kept))
        new = list(weights)
        for n, weight, state in zip(fresh, *self.several(optimizer, *chosen), strict=True):
            new[n], kept[n] = weight, state
        return new, TreeStates.apart(names, kept)


class _ByAlgorithm(Updates):
    """Updates by an algorithm, with counts and rates of the host.

    The numbers of the host reach the compiled update of one weight as one vector, that of many
    weights as a table with a row of rates for each, and a vector.
    """

    def __init__(self, optimizer: Any) -> None:
        given = optimizer._definition
        clip = given.clip_gradient
        algorithm = given._with(clip_gradient=clip if clip is not None and clip > 0 else None)
        self._algorithm = algorithm._with(**_RESOLVED)
        self._rates = lambda *counted: check_rates(algorithm.rates(*counted))
        reduced = self._algorithm._reduced()
        self._structure, _ = programs.taken_apart(reduced)
        self._floats: list[float] = jax.tree.leaves(reduced)
        self._begin, self._wd, self._schedule = given.begin_num_update, given.wd, given.lr_scheduler
        # True if the class has methods of its own for counts and rates.
        self._asks = optimizer._brings(*RATES, "learning_rate", "wd")
        self._lag = algorithm.schedule_lag
        self._kinds: set[type] = set()
        self._by_index: dict[Hashable, Callable[..., Any]] = {}
        self._by_list: dict[Hashable, Callable[..., Any]] = {}
        self._latest: tuple[Any, Any] = (None, None)

    def one(self, optimizer: Any, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        if isinstance(weight, Tracer) or isinstance(grad, Tracer):
            raise _traced(optimizer, index)
        if grad is None:
            call = f"{type(optimizer).__name__}.update({index!r})"
            raise TypeError(f"{call}: grad must be an array, got NoneType.")
        kind = type(state)
        if kind is tuple or kind not in self._kinds:
            if not self._kinds and hasattr(weight, "dtype"):
                self._kinds = kinds_of(self._algorithm, Like(weight.shape, weight.dtype, index))
            state = named_state(optimizer, "update", index, weight, state)
        counts, largest = optimizer._index_update_count, optimizer._largest
        try:
            before = counts.get(index)
        except TypeError:
            raise _unhashable(optimizer, index) from None
        try:
            counted = self._counted(optimizer, index)
            run = self._by_index.get(index) or self._single(optimizer, index, counted)
            numbers = self._numbers(counted)
            if isinstance(grad, RowSparse):
                grad = filled([grad])[0]
            slots, master = slots_and_master(state)
            given = private(([weight], (slots,), (master,), [grad]))
            new, after, masters = run(moved(numbers, weight), *given)
            # Something else may be traced: a state, rows, or all that happens inside of jax.jit.
            if isinstance(new[0], Tracer):
                raise _traced(optimizer, index)
            return new[0], with_master(after[0], masters[0])
        except BaseException as error:
            _rewind(optimizer, (counts, {index: before}, largest))
            wrong: Any = error
            if not isinstance(error, (MismatchError, WrongKindError)):
                wrong = unusable(False, weight=weight, grad=grad, state=state)
            if wrong is None:
                raise
            raise explained(f"{type(optimizer).__name__}.update", wrong, index) from None

    def _numbers(self, counted: Counted) -> np.ndarray:
        """Return the numbers of one update: those of the algorithm, and the rates."""
        key = counted, programs.double_precision()
        known, numbers = self._latest
        # Weights that are updated one after the other often have the same.
        if known != key:
            rates = jax.tree.leaves(self._rates(*counted))
            numbers = programs.precise([*self._floats, *rates])
            self._latest = key, numbers
        return numbers

    def _single(self, optimizer: Any, index: Hashable, counted: Counted) -> Callable[..., Any]:
        """Return the compiled update of one weight."""
        rates, layout = jax.tree.structure(self._rates(*counted)), _apart(1)
        self._by_index[index] = run = self._program(optimizer, (index,), rates, layout, False)
        return run

    def _program(
        self,
        optimizer: Any,
        indices: Sequence[Any],
        rates: Any,
        layout: Layout,
        donate: bool,
        alike: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Return the compiled update of some weights, with slots and rates like these."""
        names = tuple(self._algorithm._static_name(optimizer._name(index)) for index in indices)
        row_rule = ROW_RULES.get(type(self._algorithm))
        return programs.step_with_rates(
            self._structure, rates, layout, names, donate, row_rule, alike
        )

    # Many weights.

    def several(
        self, optimizer: Any, indices: list[Any], weights: Any, grads: Any, states: Any
    ) -> tuple[list[Any], list[Any]]:
        if not indices:
            return [], []
        call = f"{type(optimizer).__name__}.update"
        for index, grad in zip(indices, grads, strict=True):
            if grad is None:
                raise TypeError(f"{call}({index!r}): grad must be an array, got NoneType.")
        given = zip(indices, weights, states, strict=True)
        named = [named_state(optimizer, "update", *one) for one in given]
        kept = self._packed(indices, _apart(len(indices)), named)
        grads = list(filled(grads))
        new, kept = self._together(optimizer, call, list(weights), grads, kept, donate=False)
        return new, list(map(with_master, kept.slots.groups, kept.masters.groups))

    def laid_out(
        self, optimizer: Any, names: Sequence[str], weights: Any, states: Sequence[Any]
    ) -> TreeStates:
        """Return the states of a tree, those of equal small weights stacked."""
        kinds = [
            (self._algorithm._adapts_to(optimizer._name(name)), jax.tree.structure(state))
            for name, state in zip(names, states, strict=True)
        ]
        return self._packed(names, Layout.of(weights, kinds), states)

    def _packed(self, names: Sequence[Any], layout: Layout, states: Sequence[Any]) -> TreeStates:
        parts = [slots_and_master(state) for state in states]
        slots, masters = ([part[n] for part in parts] for n in (0, 1))
        return TreeStates(names, layout.pack(slots), layout.pack(masters))

    def step(
        self, optimizer: Any, call: str, tree: Any, weights: Any, grads: Any, states: TreeStates
    ) -> tuple[list[Any], TreeStates]:
        """Update a tree in one compiled call, whose buffers are reused."""
        del tree
        return self._together(optimizer, call, weights, grads, states, donate=True)

    def _together(
        self,
        optimizer: Any,
        call: str,
        weights: list[Any],
        grads: list[Any],
        states: TreeStates,
        donate: bool,
    ) -> Any:
        indices, slots, masters = states.names, states.slots, states.masters
        refuse_traced(optimizer, list(indices), *weights, *grads)
        updated = [i for i, grad in zip(indices, grads, strict=True) if grad is not None]
        if not updated:
            return weights, states
        if len(set(indices)) < len(indices):
            double = next(i for n, i in enumerate(indices) if i in indices[:n])
            raise ValueError(f"{call}: every index must be given once, got {double!r} twice.")
        before = _saved(optimizer, updated)
        try:
            distinct, which = self._counted_all(optimizer, updated)
            if len(updated) < len(indices):
                numbers = dict(zip(updated, which, strict=True))
                which = [numbers.get(index, 0) for index in indices]
            rates = self._rates_of(optimizer, distinct)
            structure, layout = jax.tree.structure(rates[0]), slots.layout
            # Batches are of weights with the same rates.
            alike = tuple(which) if self._algorithm.acts_on == "matrices" else ()
            key = tuple(indices), donate, structure, layout, alike
            if (run := self._by_list.get(key)) is None:
                run = self._program(optimizer, indices, structure, layout, donate, alike)
                self._by_list[key] = run
            rows = [jax.tree.leaves(one) for one in rates]
            numbers = [*self._floats, *(number for n in which for number in rows[n])]
            given = private((weights, slots.groups, masters.groups, grads))
            vector = moved(programs.precise(numbers), weights[0])
            new, after, after_masters = run(vector, *given)
            refuse_traced(optimizer, list(indices), *new)
            kept = Packed(after, layout), Packed(after_masters, layout)
            return new, TreeStates(indices, *kept)
        except BaseException as error:
            _rewind(optimizer, before)
            if isinstance(error, (MismatchError, WrongKindError)):
                # The compiled function knows a weight by its number.
                number: Any = error.index
                named = None if number is None else indices[number]
                raise explained(call, error, named) from None
            names = [str(index) for index in indices]
            firsts = [names[members[0]] for members in slots.layout.groups]
            kept = map(with_master, slots.groups, masters.groups)
            wrong = unusable(
                donate,
                weight=dict(zip(names, weights, strict=True)),
                state=dict(zip(firsts, kept, strict=True)),
                grad=dict(zip(names, grads, strict=True)),
            )
            if wrong is None:
                raise
            named = {str(index): index for index in indices}.get(str(wrong.index))
            raise explained(call, wrong, named) from None

    def _rates_of(self, optimizer: Any, distinct: Sequence[Counted]) -> list[Any]:
        """Return the rates of an update of many weights, given the distinct of what was counted.

        Where no weight has decayed yet the decay is left out: weights are not read for it then.
        """
        decays = optimizer._decays
        every = [self._rates(*counted) for counted in distinct]
        if not decays and not all(hasattr(rates, "wd") for rates in every):
            raise TypeError(
                f"{type(self._algorithm).__name__}.rates must return a NamedTuple with lr and wd, "
                f"got {type(every[0]).__name__}."
            )
        if not decays and any(rates.wd for rates in every):
            # From now on, so that a decay that comes and goes leads to one recompile.
            decays = vars(optimizer)["_decays"] = True
        return every if decays else [rates._replace(wd=sealed(rates.wd)) for rates in every]

    # Counts and rates.

    def _counted(self, optimizer: Any, index: Hashable) -> Counted:
        """Count one update of one weight; return its learning rate, decay and count."""
        if self._lag:
            # The rate for the count before this update, the weight's own. MXNet asks for the
            # largest count of any weight, which depends on the order of the calls.
            largest = optimizer._largest
            optimizer.num_update = self._count_of(optimizer, index)
            lr = optimizer._get_lr(index)
            vars(optimizer)["_largest"] = largest
            optimizer._update_count(index)
            return lr, optimizer._get_wd(index), self._count_of(optimizer, index)
        if self._asks or optimizer._lr_mult or optimizer._wd_mult or optimizer.param_dict:
            optimizer._update_count(index)
            lr, wd = optimizer._get_lr(index), optimizer._get_wd(index)
            return lr, wd, self._count_of(optimizer, index)
        # As `_update_count`, `learning_rate` and `wd` would, without the calls, which cost more
        # than what they do.
        counts = optimizer._index_update_count
        counts[index] = count = counts.get(index, self._begin) + 1
        if count > optimizer._largest:
            vars(optimizer)["_largest"] = count
        lr = optimizer._rate if self._schedule is None else None
        return optimizer.learning_rate if lr is None else lr, self._wd, count

    def _counted_all(
        self, optimizer: Any, indices: Sequence[Hashable]
    ) -> tuple[list[Counted], list[int]]:
        """Count one update of each of several weights.

        Returns:
            The distinct of what `_counted` gives, and the number in it of that of each weight.
        """
        counts, begin = optimizer._index_update_count, self._begin
        in_step = len({counts.get(index, begin) for index in indices}) == 1
        if self._lag or not (in_step or isinstance(self._algorithm, COUNTS_TOGETHER)):
            return [self._counted(optimizer, i) for i in indices], list(range(len(indices)))
        optimizer._update_count(indices)
        after = [counts.get(index, begin) for index in indices]
        # Multipliers may be arrays.
        lrs, wds = (map(float, rates) for rates in _lrs_and_wds(optimizer, indices))
        asked = list(zip(lrs, wds, after, strict=True))
        numbers = {key: number for number, key in enumerate(dict.fromkeys(asked))}
        return list(numbers), [numbers[key] for key in asked]

    def _count_of(self, optimizer: Any, index: Hashable) -> int:
        return optimizer._index_update_count.get(index, self._begin)


def _lrs_and_wds(optimizer: Any, indices: Sequence[Hashable]) -> list[list[float]]:
    """Return the rates and decays of some indices; of a subclass that gives one, asked for each."""
    return [
        [getattr(optimizer, one)(index) for index in indices]
        if optimizer._brings(one)
        else getattr(optimizer, every)(indices)
        for one, every in (("_get_lr", "_get_lrs"), ("_get_wd", "_get_wds"))
    ]


class _ByWrapper(Updates):
    """Updates by a wrapper or by what comes from optax, whose states count for themselves."""

    def __init__(self, optimizer: Any) -> None:
        self._wrapped = optimizer._definition
        joint = (type(part).__name__ for part in optimizer._parts if part._joint)
        # The name of what looks at all weights of a tree together, if anything does.
        self._joint = next(joint, None)
        leaves = [one for one in optimizer._parts if not isinstance(one, (Around, Groups))]
        # True if the state of a tree can be made from those of its weights.
        self._separable = all(isinstance(one, (OptimizerDef, Frozen)) for one in leaves)

    def one(self, optimizer: Any, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        refuse_traced(optimizer, index, weight, grad)
        grad = filled([grad])[0]
        updated = optimizer.definition.update(index, weight, grad, state)
        refuse_traced(optimizer, index, updated[0])
        optimizer._update_count(index)
        return updated

    def several(
        self, optimizer: Any, indices: list[Any], weights: Any, grads: Any, states: Any
    ) -> tuple[list[Any], list[Any]]:
        call = f"{type(self._wrapped).__name__}.update"
        if len(indices) > 1 and not self._separable:
            raise ValueError(
                f"{call}: index must be that of one weight, got "
                f"{len(indices)}: a state of optax is of one weight, or, with step and in a "
                "Trainer, of the whole tree."
            )
        parts: dict[int, list[int]] = {}
        for number, index in enumerate(indices):
            count = optimizer._index_update_count.get(index, optimizer.begin_num_update)
            parts.setdefault(count, []).append(number)
        if len(parts) > 1 and self._joint is not None:
            raise ValueError(
                f"{call}: the weights of a list must have been "
                f"updated equally often, as {self._joint} looks at them together, got counts "
                f"{sorted(parts)}."
            )
        grads = filled(grads)
        new, new_states = list(weights), list(states)
        for part in parts.values():
            arguments = [[given[n] for n in part] for given in (indices, weights, grads, states)]
            updated = self._part(optimizer.definition, call, *arguments)
            for n, weight, state in zip(part, *updated, strict=True):
                new[n], new_states[n] = weight, state
        refuse_traced(optimizer, indices, *new)
        optimizer._update_count(indices)
        return new, new_states

    def _part(
        self, definition: Any, call: str, indices: Any, weights: Any, grads: Any, states: Any
    ) -> tuple[list[Any], list[Any]]:
        names = tuple(map(str, indices))
        if len(set(names)) < len(names):
            double = next(i for n, i in enumerate(indices) if str(i) in names[:n])
            raise ValueError(
                f"{call}: every index must be given once, also as a string, got {double!r} twice."
            )
        if not self._separable:
            weight, state = definition.update(indices[0], weights[0], grads[0], states[0])
            return [weight], [state]
        try:
            return _by_name(definition)._update_each(names, weights, states, grads)
        except (MismatchError, WrongKindError) as error:
            raise explained(call, error) from None

    def first(self, optimizer: Any, names: Sequence[str], weights: Any, params: Any) -> TreeStates:
        """Return the first states of the weights of a tree, or the one of the whole tree."""
        if self._separable:
            return super().first(optimizer, names, weights, params)
        return TreeStates.of_whole(
            names, optimizer.definition._first_state("init", Tree.of(params), masters=True)
        )

    def step(
        self, optimizer: Any, call: str, tree: Any, weights: Any, grads: Any, states: TreeStates
    ) -> tuple[list[Any], TreeStates]:
        names = states.names
        stale = next((n for n, grad in enumerate(grads) if grad is None), None)
        if stale is not None and self._joint is not None:
            raise ValueError(
                f"{call}({names[stale]!r}): grad must be an array, as {self._joint} looks at all "
                "weights together, got None."
            )
        if not states.whole:
            return super().step(optimizer, call, tree, weights, grads, states)
        given = tree.unflatten(weights), tree.unflatten(grads), states.slots.groups[0]
        try:
            params, state = optimizer.definition._step(*given)
        except (MismatchError, WrongKindError) as error:
            raise explained(call, error) from None
        new = jax.tree.leaves(params)
        refuse_traced(optimizer, list(names), *new)
        optimizer._update_count(list(names))
        return new, TreeStates.of_whole(names, state)


def _by_name(definition: Any) -> Any:
    """Return a definition for a tree whose paths are the indices as strings."""
    if isinstance(definition, Around):
        return definition._with(definition=_by_name(definition.definition))
    if isinstance(definition, Groups):
        keys = (key if callable(key) else str(key) for key in definition.groups)
        opts = map(_by_name, definition.groups.values())
        return definition._with(groups=GroupMap(zip(keys, opts, strict=True)))
    tables: dict[str, Any] = {}
    kinds = {"lr_mult": Multipliers, "wd_mult": Multipliers, "param_idx2name": FrozenMap}
    for field, kind in kinds.items():
        given = getattr(definition, field, None)
        if given is not None:
            tables[field] = kind((str(key), value) for key, value in given.items())
    return definition._with(**tables)


class _ByCalls(Updates):
    """Updates by calling the `update` of a subclass, as MXNet's Updater calls it."""

    def filled(self, grads: Sequence[Any]) -> Sequence[Any]:
        return grads

    def one(self, optimizer: Any, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        if optimizer.aggregate_num > 0:
            weights, states = self.several(optimizer, [index], [weight], [grad], [state])
            return weights[0], states[0]
        with _saying_how(optimizer):
            updated = optimizer.update_multi_precision(index, weight, grad, state)
            return accepted(optimizer, index, weight, state, updated)

    def several(
        self, optimizer: Any, indices: list[Any], weights: Any, grads: Any, states: Any
    ) -> tuple[list[Any], list[Any]]:
        before = _saved(optimizer, indices)
        new, new_states = list(weights), list(states)
        try:
            for some in _batches(weights, optimizer.aggregate_num):
                given = [[part[n] for n in some] for part in (indices, weights, grads, states)]
                if optimizer.aggregate_num > 0:
                    with _saying_how(optimizer):
                        updated = optimizer.update_multi_precision(*given)
                        pairs = _accepted_list(optimizer, given[0], given[1], given[3], updated)
                else:
                    pairs = [self.one(optimizer, *(part[0] for part in given))]
                for n, pair in zip(some, pairs, strict=True):
                    new[n], new_states[n] = pair
        except BaseException:
            _rewind(optimizer, before)
            raise
        return new, new_states


def aggregation(optimizer: Any) -> int:
    """Return how many weights one call takes; 0 for an update of the class's own of one weight.

    MXNet's Updater gives lists to SGD, ccSGD, LARS and LAMB, and so to the
    `update_multi_precision` that a subclass of them brings. An `update` says by the names of its
    arguments that it takes lists.
    """
    said = (vars(kind).get("aggregate_num") for kind in type(optimizer).__mro__)
    number = next((given for given in said if isinstance(given, int)), None)
    if number is not None:
        return number
    usual = AGGREGATED.get(type(optimizer._definition), 0)
    own = [name for name in ("update", "update_multi_precision") if optimizer._brings(name)]
    if not own:
        # Ours takes any number; what delegates to it is called as MXNet would call it.
        return usual
    arguments = {
        one for name in own for one in inspect.signature(getattr(optimizer, name)).parameters
    }
    if arguments & {"indices", "indexes", "weights", "grads", "states"}:
        return usual or AGGREGATED[SGD]
    return usual if "update_multi_precision" in own else 0


@contextlib.contextmanager
def _saying_how(optimizer: Any) -> Generator[None]:
    """Add to an error how an update was called, where MXNet might have called it otherwise."""
    try:
        yield
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        number, owner = optimizer.aggregate_num, type(optimizer).__name__
        if number > 0:
            error.add_note(
                f"{owner} was called with lists of at most aggregate_num={number} weights; "
                "aggregate_num = 0 asks for one weight a call."
            )
        elif type(optimizer._definition) in AGGREGATED:
            error.add_note(
                f"{owner} was called with one weight, as aggregate_num is 0; "
                f"aggregate_num = {AGGREGATED[type(optimizer._definition)]} asks for lists."
            )
        raise


_BY_CALLS = _ByCalls()


def _batches(weights: Sequence[Any], size: int) -> list[list[int]]:
    """Return the numbers of the weights in lists of one dtype, of at most `size` each."""
    by_dtype: dict[Any, list[int]] = {}
    for number, weight in enumerate(weights):
        by_dtype.setdefault(weight.dtype if size > 0 else None, []).append(number)
    size = max(size, 1)
    return [
        numbers[start : start + size]
        for numbers in by_dtype.values()
        for start in range(0, len(numbers), size)
    ]


def accepted(optimizer: Any, index: Any, weight: Any, state: Any, updated: Any) -> tuple[Any, Any]:
    """Return the new weight, in the dtype of the old one, and state that an `update` returned.

    In MXNet `weight[:] = ...` keeps shape and dtype; here what is returned takes its place.

    Args:
        optimizer: of a class with its own `update`.
        index: of the weight.
        weight: before the update.
        state: before the update.
        updated: what the `update` returned.
    """
    where = f"{type(optimizer).__name__}.update({index!r})"
    if not isinstance(updated, (tuple, list)) or len(updated) != 2:
        raise TypeError(
            f"{where}: must return (weight, state), as arrays do not change in place, "
            f"got {type(updated).__name__}."
        )
    new, new_state = updated
    if not hasattr(new, "shape") or not hasattr(new, "dtype"):
        raise TypeError(
            f"{where}: weight must be an array, got {type(new).__name__}; return (weight, state)."
        )
    if new.shape != jnp.shape(weight):
        raise ValueError(f"{where}: weight must have shape {jnp.shape(weight)}, got {new.shape}.")
    if isinstance(state, (tuple, list, dict)) and state and hasattr(new_state, "shape"):
        raise TypeError(
            f"{where}: state must be a {type(state).__name__}, as it was, got an array; return "
            "(weight, state)."
        )
    dtype = getattr(weight, "dtype", new.dtype)
    if new.dtype != dtype:
        if jnp.issubdtype(new.dtype, jnp.complexfloating):
            raise TypeError(f"{where}: weight must be real, got dtype {new.dtype}.")
        new = new.astype(dtype)
    return new, new_state


def _accepted_list(
    optimizer: Any, indices: Any, weights: Any, states: Any, updated: Any
) -> list[tuple[Any, Any]]:
    """Return pairs like `accepted` for the two lists that an `update` of lists returned."""
    parts: Any = updated if isinstance(updated, (tuple, list)) else ()
    if len(parts) != 2 or any(
        not isinstance(part, (tuple, list)) or len(part) != len(indices) for part in parts
    ):
        given = type(updated).__name__ if len(parts) != 2 else jax.tree.map(jnp.shape, parts)
        raise TypeError(
            f"{type(optimizer).__name__}.update({indices!r}): must return (weight, state), two "
            f"lists of {len(indices)}, as arrays do not change in place, got {given}."
        )
    rows = zip(indices, weights, states, *parts, strict=True)
    return [accepted(optimizer, i, w, old, (new, state)) for i, w, old, new, state in rows]


# Pieces of the above.


def check_lists(call: str, count: int, **given: Any) -> None:
    """Raise ValueError unless what goes with a list of indices are lists as long."""
    for what, value in given.items():
        if not isinstance(value, (list, tuple)) or len(value) != count:
            size = len(value) if isinstance(value, (list, tuple)) else type(value).__name__
            raise ValueError(f"{call}: {what} must be a list of {count}, as index is, got {size}.")


def check_pairs(call: str, names: Sequence[str], weights: Any, grads: Any) -> None:
    """Raise unless all gradients that are not None fit their weights."""
    for name, weight, grad in zip(names, weights, grads, strict=True):
        try:
            if grad is not None:
                check_pair(weight, grad, name)
        except (MismatchError, WrongKindError) as error:
            raise explained(call, error) from None


def refuse_traced(optimizer: Any, index: Any, *arrays: Any) -> None:
    """Raise TypeError if an array is only being traced."""
    if any(isinstance(array, Tracer) for array in arrays):
        raise _traced(optimizer, index)


def _traced(optimizer: Any, index: Any) -> TypeError:
    return TypeError(
        f"{type(optimizer).__name__}.update({index!r}): weight, grad and state must be arrays, got "
        "a tracer. The counts live on the host, where jax.jit would count once for all calls: use "
        "`definition` there."
    )


def check_indices(optimizer: Any, indices: Sequence[Any]) -> None:
    """Raise TypeError unless every index is hashable."""
    for index in indices:
        try:
            hash(index)
        except TypeError:
            raise _unhashable(optimizer, index) from None


def _unhashable(optimizer: Any, index: Any) -> TypeError:
    return TypeError(f"{type(optimizer).__name__}.update: index must be hashable, got {index!r}.")


def _saved(optimizer: Any, indices: Sequence[Any]) -> tuple[Any, dict[Any, int | None], int]:
    """Return the counts of some indices, for `_rewind` if their update fails."""
    counts = optimizer._index_update_count
    try:
        return counts, {index: counts.get(index) for index in indices}, optimizer._largest
    except TypeError:
        raise _unhashable(optimizer, indices) from None


def _rewind(optimizer: Any, saved: tuple[Any, Mapping[Any, int | None], int]) -> None:
    """Set counts back, as the update has failed."""
    counts, before, largest = saved
    for index, count in before.items():
        if count is None:
            counts.pop(index, None)
        else:
            counts[index] = count
    vars(optimizer)["_largest"] = largest
