"""The stateful optimizer around a wrapper, or around what comes from optax."""

import functools
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.core import Tracer

from jaxmxopt._core import compiled as _compiled
from jaxmxopt._core.checks import MismatchError, WrongKindError, explained
from jaxmxopt._core.compiled import flattened
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.multipliers import Multipliers
from jaxmxopt._core.one_loop import is_own_program
from jaxmxopt._core.pure import Definition
from jaxmxopt._core.shared_programs import program_of
from jaxmxopt._stateful.counts import symbol_info
from jaxmxopt._stateful.hyperparameters import Undefined, warn_of_a_slip
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._wrappers.accumulate import Accumulate
from jaxmxopt._wrappers.around import Around
from jaxmxopt._wrappers.frozen import Frozen
from jaxmxopt._wrappers.groups import GroupMap, Groups

__all__ = ["TreeOptimizer"]

_FIELDS = {"lr": "learning_rate"}


class TreeOptimizer(Optimizer):
    """An `Optimizer` around a definition that is no algorithm: `Optimizer(EMA(Adam()))` makes one.

    States are those of the definition and count for themselves. Hyperparameters read as those of
    the first algorithm inside and are written to all. A list of weights is updated as one tree
    where all of them have been updated equally often, else part by part; what looks at all weights
    together, as `ClipGlobalNorm` does, refuses such a list. What comes from optax takes one weight
    a call, or all of them in a `Trainer`.
    """

    _algorithm: Any = Undefined()

    def __init__(  # pyright: ignore[reportInconsistentConstructor]
        self,
        definition: Definition,
        /,
        sym: Any = None,
        param_dict: Mapping[Any, Any] | None = None,
        **hyperparameters: Any,
    ) -> None:
        write = self.__dict__
        write["_wrapped"] = definition.replace(**hyperparameters) if hyperparameters else definition
        write["_all_index_update_counts"] = {0: {}}
        self._set_current_context(0)
        write["idx2name"] = dict(getattr(self, "param_idx2name", None) or {})
        write["sym_info"] = symbol_info("Optimizer", sym)
        write["param_dict"] = param_dict or {}
        write["aggregate_num"] = sys.maxsize
        if sym is not None:
            self.set_lr_mult(self.lr_mult or {})
            self.set_wd_mult(self.wd_mult or {})

    def __setattr__(self, name: str, value: Any) -> None:
        field = _FIELDS.get(name, name)
        wrapped = self.__dict__.get("_wrapped")
        if name == "num_update":
            return
        if wrapped is None or not any(hasattr(one, field) for one in _leaves(wrapped)):
            if wrapped is not None and name not in self.__dict__:
                fields = {field for one in _leaves(wrapped) for field in one._described}
                warn_of_a_slip(self, name, [*fields, *_FIELDS])
            object.__setattr__(self, name, value)
        elif getattr(self, name) is not value:
            self.__dict__["_wrapped"] = wrapped.replace(**{field: value})

    def __getattr__(self, name: str) -> Any:
        wrapped = self.__dict__.get("_wrapped")
        field = _FIELDS.get(name, name)
        for one in () if wrapped is None or name.startswith("__") else _leaves(wrapped):
            if hasattr(one, field):
                return getattr(one, field)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def definition(self) -> Any:
        """The immutable definition that does the same, as things stand now."""
        if not self.param_dict:
            return self._wrapped
        tables: dict[str, dict[Any, Any]] = {}
        for which in ("lr_mult", "wd_mult"):
            tables[which] = dict(getattr(self, which, None) or {})
            tables[which] |= {i: self._of_parameter(i, which) for i in self.param_dict}
        return self._wrapped.replace(**tables)

    def _without_weight(self, names: Sequence[str]) -> list[str]:
        return self.definition._without_weight(names)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first algorithm inside as it stands, before multipliers."""
        if self.lr is None and self.lr_scheduler is None:
            raise ValueError(
                f"{type(self._wrapped).__name__}.learning_rate: nothing can be read, as tx has a "
                "learning rate itself; one given to from_optax can be read and set."
            )
        return super().learning_rate

    @property
    def num_update(self) -> int:
        """The largest number of updates of any weight; calls that accumulate are none."""
        counts = (n for table in self._all_index_update_counts.values() for n in table.values())
        begin = getattr(self, "begin_num_update", 0)
        return begin + max(counts, default=0) // _every(self._wrapped)

    def _update_count(self, index: Any) -> None:
        for one in index if isinstance(index, (list, tuple)) else (index,):
            self._index_update_count[one] = self._index_update_count.get(one, 0) + 1

    # States.

    def create_state(self, index: Hashable, weight: Any) -> Any:
        """Makes the state of one weight: a `State` of the definition."""
        return self.definition.create_state(index, weight)

    def create_state_multi_precision(self, index: Hashable, weight: Any) -> Any:
        """Makes the state of one weight, with a master where `multi_precision` wants one."""
        return self.definition.create_state_multi_precision(index, weight)

    # Updates.

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        """Updates one weight, or all of a list; arguments are as of `Optimizer.update`."""
        if isinstance(index, (list, tuple)):
            return self._update_each(index, weight, grad, state)
        self._refuse_traced(index, weight, grad)
        updated = self.definition.update(index, weight, grad, state)
        self._refuse_traced(index, updated[0])
        self._update_count(index)
        return updated

    def update_multi_precision(
        self, index: Any, weight: Any, grad: Any, state: Any
    ) -> tuple[Any, Any]:
        """Updates like `update`, which follows the state it is given."""
        return self.update(index, weight, grad, state)

    def _update_each(
        self, indices: Sequence[Any], weights: Sequence[Any], grads: Sequence[Any], states: Any
    ) -> tuple[list[Any], list[Any]]:
        if len(indices) > 1 and not self._is_separable():
            raise ValueError(
                f"{type(self._wrapped).__name__}.update: index must be that of one weight, got "
                f"{len(indices)}: a state of optax is of one weight, or, with step and in a "
                "Trainer, of the whole tree."
            )
        parts: dict[int, list[int]] = {}
        for number, index in enumerate(indices):
            parts.setdefault(self._index_update_count.get(index, 0), []).append(number)
        if len(parts) > 1 and (joint := self._joint()) is not None:
            raise ValueError(
                f"{type(self._wrapped).__name__}.update: the weights of a list must have been "
                f"updated equally often, as {joint} looks at them together, got counts "
                f"{sorted(parts)}."
            )
        new, new_states = list(weights), list(states)
        for part in parts.values():
            arguments = [[given[n] for n in part] for given in (indices, weights, grads, states)]
            for n, weight, state in zip(part, *self._update_part(*arguments), strict=True):
                new[n], new_states[n] = weight, state
        self._refuse_traced(list(indices), *new)
        self._update_count(list(indices))
        return new, new_states

    def _update_part(
        self, indices: list[Any], weights: list[Any], grads: list[Any], states: list[Any]
    ) -> tuple[list[Any], list[Any]]:
        definition, names = self.definition, tuple(map(str, indices))
        call = f"{type(definition).__name__}.update"
        if len(set(names)) < len(names):
            double = next(i for n, i in enumerate(indices) if str(i) in names[:n])
            raise ValueError(
                f"{call}: every index must be given once, also as a string, got {double!r} twice."
            )
        if not self._is_separable():
            updated = definition.update(indices[0], weights[0], grads[0], states[0])
            return [updated[0]], [updated[1]]
        structure, numbers = flattened(_by_name(definition)._reduced())
        try:
            for index, state in zip(indices, states, strict=True):
                definition._check_form(state, index)
            run = program_of(self._wrapped, _together, structure, names, own=is_own_program())
            return run(numbers, weights, grads, states)
        except (MismatchError, WrongKindError) as error:
            raise explained(call, error) from None

    def _step_whole(
        self, call: str, names: Sequence[str], params: Any, grads: Any, state: Any
    ) -> tuple[Any, Any]:
        """Updates a whole tree of weights of these names, whose state is one."""
        try:
            updated = self.definition._step(params, grads, state, None, False)
        except (MismatchError, WrongKindError) as error:
            raise explained(call, error) from None
        self._refuse_traced(list(names), *jax.tree.leaves(updated[0]))
        self._update_count(list(names))
        return updated

    def _refuse_traced(self, index: Any, *weights: Any) -> None:
        """Refuses to go on with what is only being traced."""
        if any(isinstance(weight, Tracer) for weight in weights):
            raise self._traced("update", index)

    def _is_separable(self) -> bool:
        """Whether the state of a tree can be made from those of its weights."""
        return all(isinstance(one, (OptimizerDef, Frozen)) for one in _leaves(self._wrapped))

    def _adds_up(self) -> bool:
        return any(isinstance(one, Accumulate) for one in _inside(self._wrapped))

    def _joint(self) -> str | None:
        """The name of what inside looks at all weights of a tree together, if anything does."""
        joint = (type(one).__name__ for one in _inside(self._wrapped) if one._joint)
        return next(joint, None)

    def __repr__(self) -> str:
        return f"Optimizer({self._wrapped!r}, num_update={self.num_update})"


Optimizer._of_trees = TreeOptimizer
# What messages call it.
TreeOptimizer.__name__ = "Optimizer"


@functools.lru_cache(maxsize=256)
def _together(structure: Any, names: tuple[str, ...]) -> Callable[..., Any]:
    """The jitted update of weights of these names, with a state each, as one tree."""

    def run(numbers: Any, weights: Any, grads: Any, states: Any) -> Any:
        opt = _compiled.definition(structure, numbers)
        params, grads = dict(zip(names, weights, strict=True)), dict(zip(names, grads, strict=True))
        state = opt._pack(params, dict(zip(names, states, strict=True)))
        params, state = opt._step(params, grads, state, None, False)
        shown = state.unpack(params)
        return [params[name] for name in names], [shown[name] for name in names]

    return jax.jit(run)


def _inside(definition: Any) -> Iterator[Any]:
    """A definition and all that are inside."""
    yield definition
    if isinstance(definition, Around):
        yield from _inside(definition.definition)
    elif isinstance(definition, Groups):
        for part in definition.groups.values():
            yield from _inside(part)


def _leaves(definition: Any) -> Iterator[Any]:
    """The definitions inside that hold no others."""
    return (one for one in _inside(definition) if not isinstance(one, (Around, Groups)))


def _every(definition: Any) -> int:
    """How many calls an update takes; of several groups the fewest."""
    if isinstance(definition, Groups):
        return min(_every(part) for part in definition.groups.values())
    if isinstance(definition, Around):
        own = definition.every if isinstance(definition, Accumulate) else 1
        return own * _every(definition.definition)
    return 1


def _by_name(definition: Any) -> Any:
    """The same for a tree whose paths are the indices as strings."""
    if isinstance(definition, Around):
        return definition._with(definition=_by_name(definition.definition))
    if isinstance(definition, Groups):
        pairs = ((str(key), _by_name(opt)) for key, opt in definition.groups.items())
        return definition._with(groups=GroupMap(pairs))
    if isinstance(definition, Frozen):
        return definition
    tables: dict[str, Any] = {}
    for field in ("lr_mult", "wd_mult"):
        given = getattr(definition, field)
        if given is not None:
            tables[field] = Multipliers((str(key), value) for key, value in given.items())
    if definition.param_idx2name is not None:
        named = definition.param_idx2name.items()
        tables["param_idx2name"] = type(definition.param_idx2name)((str(k), v) for k, v in named)
    return definition._with(**tables)
