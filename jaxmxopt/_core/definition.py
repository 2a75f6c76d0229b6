"""The pure functions that every definition offers: algorithms, wrappers, and optax's."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import SingleDeviceSharding

from jaxmxopt._core import programs
from jaxmxopt._core.checks import (
    MismatchError,
    WrongKindError,
    check_count,
    explained,
    tree_of,
    unusable,
)
from jaxmxopt._core.config import Config
from jaxmxopt._core.copies import moved, private
from jaxmxopt._core.engine import Given
from jaxmxopt._core.layout import stack
from jaxmxopt._core.names import Tree
from jaxmxopt._core.overriding import warn_caller
from jaxmxopt._core.slots import made
from jaxmxopt._core.state import State

__all__ = ["Arrays", "Definition", "Maker", "as_definition", "instead"]

Self = TypeVar("Self", bound="Definition")
_WHOLE = object()


class Maker:
    """The maker of first states, of arrays or of what stands for arrays, as shardings do."""

    def __init__(self, masters: bool = True) -> None:
        self.masters = masters

    def slot(self, slot: Any, weight: Any) -> Any:
        """Return what a `Slot` describes; `weight` is None for a number of the whole tree."""
        raise NotImplementedError

    def stacked(self, parts: Sequence[Any]) -> Any:
        """Return the slots of several weights as one."""
        raise NotImplementedError

    def others(self, function: Callable[[Any], Any], tree: Tree) -> Any:
        """Return what a function makes of a tree of weights; paths say what goes with which."""
        raise NotImplementedError


class Arrays(Maker):
    """The arrays themselves."""

    def slot(self, slot: Any, weight: Any) -> Any:
        """Return the array that a `Slot` describes."""
        return jnp.full((), slot.first, slot.dtype) if weight is None else made(slot, weight)

    def stacked(self, parts: Sequence[Any]) -> Any:
        """Return the slots of several weights along a new leading axis."""
        return stack(parts)

    def others(self, function: Callable[[Any], Any], tree: Tree) -> Any:
        """Return what a function makes of a tree of weights."""
        return function(tree.like(tree.leaves))


class Definition(Config):
    """An immutable value that updates weights: an `OptimizerDef`, or a wrapper around some.

    All functions are pure: they return new weights and states. They work inside and outside
    `jax.jit`, and under `vmap`, `scan`, `grad` and `shard_map`.
    """

    # True if the update of a weight depends on the other weights of its tree.
    _joint: ClassVar[bool] = False
    # False if gradients are not read: they are in no norm and may hold anything.
    _reads_gradients: ClassVar[bool] = True

    # One weight.

    def create_state(self, index: Hashable, weight: Any) -> State:
        """Make the state of one weight.

        Args:
            index: any hashable; the weight's key in `lr_mult` and `wd_mult`.
            weight: a floating array of any shape.

        Returns:
            A `State` without a master, its slots in the dtype and on the devices of the weight.

        Raises:
            TypeError: the weight is not a floating array.
        """
        return self._first_state("create_state", Tree.of_one(index, weight), masters=False)

    def create_state_multi_precision(self, index: Hashable, weight: Any) -> State:
        """Make the state of one weight, with a float32 master where `multi_precision` wants one.

        Half-precision weights without `multi_precision` warn, once a process.
        """
        tree = Tree.of_one(index, weight)
        return self._first_state("create_state_multi_precision", tree, masters=True)

    def update(self, index: Hashable, weight: Any, grad: Any, state: State) -> tuple[Any, State]:
        """Update one weight.

        Args:
            index: as given to `create_state`; static under `jax.jit`.
            weight: floating, of any shape.
            grad: an array of the same shape, or a `RowSparse` of that shape.
            state: of this weight; its master is used where it has one.

        Returns:
            The new weight, of the old one's shape and dtype, and the new state.

        Raises:
            ValueError: shapes do not fit, or the state lacks slots that a hyperparameter needs now,
                such as a momentum that was 0. Nothing has changed then, nor with a TypeError.
            TypeError: an argument is not a floating array, or the slots are not those that the
                algorithm makes.
        """
        try:
            run, numbers = self._bound(index, False, state, getattr(weight, "shape", ()))
            return run(numbers, *private((weight, state, grad)), None)
        except (TypeError, ValueError, RuntimeError) as error:
            call = f"{type(self).__name__}.update"
            wrong = _explained(call, error, index, False, weight, grad, state)
            if wrong is error:
                raise
            raise wrong from None

    def update_multi_precision(
        self, index: Hashable, weight: Any, grad: Any, state: State
    ) -> tuple[Any, State]:
        """MXNet's name for `update`, which follows the state it is given."""
        return self.update(index, weight, grad, state)

    # Whole trees.

    def init(self, params: Any) -> State:
        """Make the state of a tree of weights.

        Args:
            params: any pytree of floating arrays. The index of a leaf is its path joined by `/`,
                such as `"decoder/0/kernel"`.

        Returns:
            One `State` for the tree. Small weights of which very many have one shape share their
            slots' arrays; `state.unpack(params)` shows them weight by weight.

        Raises:
            TypeError: a leaf is not a floating array; the message has its path.
            ValueError: two leaves have one path; the message has both.

        Warns:
            UserWarning: a key of a multiplier or a pattern of `Groups` is of no weight.
        """
        try:
            tree = tree_of(params)
        except MismatchError as error:
            raise explained(f"{type(self).__name__}.init", error) from None
        shapes = {
            str(name): getattr(leaf, "shape", ())
            for name, leaf in zip(tree.names, tree.leaves, strict=True)
        }
        for message in self._unmatched(shapes) if shapes else ():
            warn_caller(f"{type(self).__name__}.init: {message}")
        return self._first_state("init", tree, masters=True)

    def step(
        self, params: Any, grads: Any, state: State, *, where: Any = None, donate: bool = False
    ) -> tuple[Any, State]:
        """Update a whole tree of weights in one compiled call.

        Args:
            params: the tree of weights.
            grads: a tree of the same structure; a leaf may be a `RowSparse`.
            state: from `init`.
            where: a scalar bool array; False leaves everything untouched, counts included.
            donate: reuse the buffers of `params` and `state`, which are dead afterwards.
                Without effect inside another `jax.jit`, which has its own `donate_argnums`.

        Returns:
            The new weights and the new state.

        Raises:
            ValueError: structures, shapes or the names of the weights do not fit; the message has
                the path. Or the state lacks slots, as of `update`. Nothing has changed then, nor
                with a TypeError.
            TypeError: a leaf is not a floating array, or the slots are not those that the
                algorithm makes.
        """
        try:
            return self._step(params, grads, state, where, donate)
        except (TypeError, ValueError, RuntimeError) as error:
            call = f"{type(self).__name__}.step"
            wrong = _explained(call, error, None, donate, params, grads, state, where)
            if wrong is error:
                raise
            raise wrong from None

    def pack(self, params: Any, states: Any) -> State:
        """Make the state of a tree from states weight by weight: the inverse of `State.unpack`.

        Args:
            params: the tree of weights.
            states: a tree like `params` of `State`, all with the same `num_update`.

        Raises:
            ValueError: structures differ, or so do the counts.
        """
        leaves, structure = jax.tree.flatten(states, is_leaf=lambda node: isinstance(node, State))
        try:
            tree = tree_of(params)
            if structure != tree.structure:
                raise MismatchError(
                    "states must be a tree like params with a State for every weight, "
                    f"got {structure}, expected {tree.structure}."
                )
            for name, leaf in zip(tree.names, leaves, strict=True):
                if not isinstance(leaf, State):
                    raise WrongKindError(f"state must be a State, got {type(leaf).__name__}.", name)
                check_count(leaf.num_update)
            return self._packed(tree, leaves)
        except (MismatchError, WrongKindError) as error:
            raise explained(f"{type(self).__name__}.pack", error) from None

    def replace(self: Self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked like a new one."""
        return programs.hand_on(self, super().replace(**changes))

    # The six functions that an algorithm and a wrapper implement. Their errors do not say which
    # call it was: the functions above do.

    def _begin(self, tree: Tree, maker: Maker) -> State:
        """Return the first state of a tree of weights, or of one weight."""
        raise NotImplementedError(f"{type(self).__name__} must define _begin.")

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        """Return the new weights and state, traced."""
        raise NotImplementedError(f"{type(self).__name__} must define _advance.")

    def _packed(self, tree: Tree, states: Sequence[State]) -> State:
        """Return the state of a tree of weights from those of the weights."""
        raise NotImplementedError(f"{type(self).__name__} must define _packed.")

    def _for(self, index: Hashable, shape: Sequence[int]) -> tuple["Definition", Hashable]:
        """Return the same for one weight alone, and its index there.

        Weights that are treated alike give equal ones.
        """
        del shape
        return self, index

    def _map(self: Self, function: Callable[[Any, Any], Any], state: Any = None) -> Self:
        """Return the same with other definitions inside.

        Args:
            function: gets each definition that has none inside and, if `state` is given, its state.
            state: of this definition.
        """
        return function(self, state)

    def _unmatched(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """Return messages about what is said of weights that are not among these.

        Args:
            shapes: of the weights, by name.
        """
        del shapes
        return []

    # What only the definitions without others inside define.

    def _asked(self: Self, state: Any) -> Self:
        """Return the same with the rate that a schedule, which is a function, gives now."""
        del state
        return self

    def _reduced(self: Self) -> Self:
        """Return the same for a compiled function: numbers known to be 0 are structure."""
        return self

    def _is_traced(self) -> bool:
        """True if a number that decides which slots there are is being traced."""
        return False

    # What the public functions do.

    def _inside(self) -> list[Any]:
        """Return the definitions inside that have none inside themselves."""
        found: list[Any] = []

        def note(one: Any, state: Any) -> Any:
            del state
            found.append(one)
            return one

        self._map(note)
        return found

    def _first_state(self, call: str, tree: Tree, *, masters: bool) -> State:
        call = f"{type(self).__name__}.{call}"
        leaves = [jnp.asarray(leaf) if isinstance(leaf, float) else leaf for leaf in tree.leaves]
        try:
            return self._begin(tree._replace(leaves=leaves), Arrays(masters))
        except (MismatchError, WrongKindError) as error:
            raise explained(call, error) from None

    def _step(
        self, params: Any, grads: Any, state: Any, where: Any = None, donate: bool = False
    ) -> tuple[Any, State]:
        """Do what `step` does; errors do not say which call it was."""
        run, numbers = self._bound(_WHOLE, donate, state)
        return run(numbers, *private((params, state, grads, where)))

    def _update_each(
        self, names: tuple[Hashable, ...], weights: list[Any], states: list[Any], grads: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        """Update weights that have a state each as one tree; errors do not say which call it was.

        The names are strings.
        """
        for name, state in zip(names, states, strict=True):
            if not isinstance(state, State):
                raise WrongKindError(f"state must be a State, got {type(state).__name__}.", name)
        chosen = self
        if self._asks():
            tree = Tree(names, weights, jax.tree.structure(weights))
            chosen = self._asked_now(self._packed(tree, states))
        run, (vector, arrays) = self._compiled(chosen, names, donate=False, apart=True)
        numbers = moved(vector, next(iter(weights), None)), arrays
        return run(numbers, *private((weights, states, grads)), None)

    def _bound(
        self, index: Hashable, donate: bool, state: Any, shape: Sequence[int] = ()
    ) -> tuple[Any, Any]:
        """Return the compiled update of a weight, or of a tree, and the numbers it takes."""
        kept = self.__dict__.get("_calls")
        key = index, shape, donate, programs.double_precision()
        try:
            found = kept.get(key) if kept is not None else None
        except TypeError:
            raise TypeError(self._unhashable(index)) from None
        if found is not None:
            return found
        chosen, static = (self, None) if index is _WHOLE else self._of_one(index, shape)
        asks = chosen._asks()
        if asks:
            if not isinstance(state, State):
                raise WrongKindError(f"state must be a State, got {type(state).__name__}.")
            chosen = chosen._asked_now(state)
        run, numbers = self._compiled(chosen, static, donate=donate, apart=False)
        vector, arrays = numbers
        if asks:
            return run, (moved(vector, None), arrays)
        if arrays:
            return run, numbers
        on_device = jax.device_put(vector)
        if isinstance(on_device, Tracer) or not _is_free(on_device):
            # Made under a trace or a mesh, the array would be of no use outside it.
            return run, numbers
        if kept is None:
            kept = self.__dict__.setdefault("_calls", {})
        kept[key] = run, (on_device, arrays)
        return kept[key]

    def _compiled(
        self, chosen: "Definition", names: Any, *, donate: bool, apart: bool
    ) -> tuple[Any, Any]:
        """Return the compiled update by a definition made of this one, and its numbers."""
        lenient = any(one._is_traced() for one in chosen._inside())
        reduced = chosen._map(lambda one, _: one._reduced())
        structure, numbers = programs.taken_apart(reduced)
        how = structure, names, donate, lenient, apart
        return programs.shared_by(self, reduced, programs.step, *how), numbers

    def _asks(self) -> bool:
        """True if a schedule inside is a function: nothing says what it depends on."""
        return any(map(_has_function, self._inside()))

    def _asked_now(self: Self, state: State) -> Self:
        """Return the same for this one update: schedules that are functions have been asked."""
        return self._map(lambda one, state: one._asked(state) if _has_function(one) else one, state)

    def _reads(self, name: Hashable, weight: Any) -> bool:
        """True if the gradient of a weight is read."""
        chosen = self._for(name, getattr(weight, "shape", ()))[0]
        return any(one._reads_gradients for one in chosen._inside())

    def _of_one(
        self, index: Hashable, shape: Sequence[int]
    ) -> tuple["Definition", tuple[Hashable]]:
        try:
            hash(index)
        except TypeError:
            raise TypeError(self._unhashable(index)) from None
        chosen, static = self._for(index, shape)
        return chosen, (static,)

    def _unhashable(self, index: Any) -> str:
        return f"{type(self).__name__}.update: index must be hashable, got {index!r}."

    def _with(self: Self, **fields: Any) -> Self:
        """Return a copy with fields that no check may see."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__getstate__(), **fields)
        return copy


def _has_function(definition: Any) -> bool:
    """True if the schedule of a definition that has none inside is a function."""
    scheduler = definition.__dict__.get("lr_scheduler")
    return any(True for _ in programs.functions_in(scheduler))


def _is_free(array: jax.Array) -> bool:
    """True if an array is bound to no device and no mesh."""
    return isinstance(array.sharding, SingleDeviceSharding) and not array.committed


def _explained(
    call: str,
    error: Exception,
    index: Hashable,
    donated: bool,
    weight: Any,
    grad: Any,
    state: Any,
    where: Any = None,
) -> Exception:
    """Return the error for users: of ours with the call, of JAX's with what was wrong if known."""
    if isinstance(error, (MismatchError, WrongKindError)):
        return explained(call, error, index)
    # The runtime says that arrays are given away twice, by an error that is not a TypeError.
    donated = donated and not isinstance(error, TypeError)
    wrong = unusable(donated, weight=weight, grad=grad, state=state, where=where)
    return error if wrong is None else explained(call, wrong, index)


def as_definition(what: str, given: Any) -> Definition:
    """Return what was given if it is a definition; raise TypeError, with a hint, if not."""
    if isinstance(given, Definition):
        return given
    raise TypeError(f"{what} must be an optimizer such as jaxmxopt.Adam(), got {instead(given)}.")


def instead(given: Any) -> str:
    """Describe what somebody gave where a definition is needed, and what would be one."""
    if isinstance(given, type):
        name = given.__name__
        callable_one = issubclass(given, Definition) or hasattr(given, "create_optimizer")
        return f"the class {name}" + (f"; call it: {name}()" if callable_one else "")
    if isinstance(getattr(given, "definition", None), Definition):
        return f"{given!r}; give its `definition`"
    if hasattr(given, "init") and hasattr(given, "update"):
        return f"{type(given).__name__}; jaxmxopt.interop.from_optax takes it"
    plain = isinstance(given, (str, int, float, np.generic, type(None)))
    return repr(given) if plain else type(given).__name__
