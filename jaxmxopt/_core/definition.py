"""The base of all algorithms: common hyperparameters, and the pure functions users call."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.errors import (
    ConcretizationTypeError,
    TracerArrayConversionError,
    TracerIntegerConversionError,
)
from jax.sharding import SingleDeviceSharding

from jaxmxopt._core import compiled as _compiled
from jaxmxopt._core.checks import (
    MismatchError,
    WrongKindError,
    check_array,
    check_arrays,
    check_form,
    check_rate,
    explained,
    slots_by_shape,
)
from jaxmxopt._core.compiled import double_precision, flattened
from jaxmxopt._core.config import FrozenMap, Node, NonNegative, Real, Static
from jaxmxopt._core.engine import in_precision
from jaxmxopt._core.exported import exportable
from jaxmxopt._core.layout import Layout, Packed
from jaxmxopt._core.multipliers import Multipliers, find, matches, nobody
from jaxmxopt._core.numeric import on_cpu
from jaxmxopt._core.one_loop import is_known, is_own_program, makes_own_program
from jaxmxopt._core.overriding import check_scheduler, overridden, warn_caller
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.pure import WHOLE, Definition, flatten_states
from jaxmxopt._core.rates import Rates
from jaxmxopt._core.shared_programs import program_of
from jaxmxopt._core.state import State
from jaxmxopt._core.zero import ZERO, without_zero_decay, zero_or

__all__ = ["OptimizerDef"]

Self = TypeVar("Self", bound="OptimizerDef")
# Counts are int32.
MOST_UPDATES = 2**31 - 1
_NOTHING: Mapping[Any, Any] = {}
HALF = frozenset(
    jnp.dtype(kind)
    for name, kind in vars(jnp).items()
    if name.startswith(("float16", "bfloat16", "float8", "float4"))
)


class Unasked(float):
    """A default learning rate: it gives way to a scheduler's."""


class OptimizerDef(Definition):
    r"""An optimizer as an immutable value, a pytree of its hyperparameters.

    Its subclasses are the algorithms. All functions are pure: they return new weights and
    states. They work inside and outside `jax.jit`, and under `vmap`, `scan`, `grad` and
    `shard_map`.

    The learning rate of an update is `learning_rate`, or `lr_scheduler(t)` with the count `t`
    already raised, times the weight's `lr_mult`; its decay is `wd` times the weight's `wd_mult`.

    Attributes:
        learning_rate: the step size, in :math:`[0, \infty)`. With a scheduler that has a
            `base_lr` a given one overrides it, with a warning if that is not the default. None
            beside a scheduler.
        lr_scheduler: any callable from an update count (a traced int32, the first is 1) to a
            number: those of `jaxmxopt.lr_scheduler`, optax schedules.
        wd: weight decay, in :math:`[0, \infty)`; where it enters differs between algorithms.
        rescale_grad: every gradient is multiplied by it first; any real number.
        clip_gradient: limits the elements of the gradient to `[-clip_gradient, clip_gradient]`;
            None, 0 and below mean no limit. What is clipped differs between algorithms.
        begin_num_update: the count that states start from, 0 or more.
        multi_precision: float32 masters and slots for weights of fewer than 32 bits.
        lazy_update: a `RowSparse` gradient touches its rows alone.
        param_idx2name: names of indices, for the multipliers. As in MXNet, a weight named here
            whose name ends neither in `_weight` nor in `_gamma` has no decay by default.
        lr_mult: factors of the learning rate by index, name or pattern such as `"*/bias"`.
        wd_mult: factors of `wd`, likewise.
    """

    learning_rate: NonNegative | None = Unasked(0.01)
    lr_scheduler: Node[Callable[[Any], Any] | None] = None
    wd: NonNegative = 0.0
    rescale_grad: Real = 1.0
    clip_gradient: Real | None = None
    begin_num_update: Static[int] = 0
    multi_precision: Static[bool] = False
    lazy_update: Static[bool] = False
    param_idx2name: Static[Mapping[Hashable, str] | None] = None
    lr_mult: Node[Mapping[Any, Any] | None] = None
    wd_mult: Node[Mapping[Any, Any] | None] = None

    # Whether the rule gives the same on some rows of a weight as on the whole.
    _rowwise: ClassVar[bool] = True
    # The NamedTuples that the slots may be, `()` written as `tuple`.
    _slot_types: ClassVar[tuple[type, ...]] = (tuple,)
    # The hyperparameter that decides which of them, or which of their fields, there are.
    _slots_by: ClassVar[str | None] = None
    # Endings of the names that decay by default where `param_idx2name` gives names.
    _decaying: ClassVar[tuple[str, ...]] = ("_weight", "_gamma")
    # How many updates behind this one the schedule is asked: LBSGD reads its rate, then counts.
    _schedule_lag: ClassVar[int] = 0
    # Whether slots hold gradients that `rescale_grad` is yet to multiply.
    _holds_gradients: ClassVar[bool] = False
    # Whether a list call of the stateful layer raises all counts before it asks for a rate.
    _counts_together: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        own = vars(cls).get("learning_rate")
        if own is not None:
            cls.learning_rate = Unasked(own)
        super().__init_subclass__(**kwargs)
        for kind in cls._slot_types:
            if hasattr(kind, "_fields"):
                exportable(kind)

    def __post_init__(self) -> None:
        asked = self.learning_rate is not None and not isinstance(self.learning_rate, Unasked)
        owner = type(self).__name__
        if type(self) is OptimizerDef:
            raise TypeError("OptimizerDef is abstract: make one of its subclasses.")
        if callable(self.learning_rate):
            raise TypeError(
                f"{owner}: learning_rate must be a real number, got {self.learning_rate!r}; "
                "lr_scheduler takes a schedule."
            )
        super().__post_init__()
        if self.lr_scheduler is not None:
            check_scheduler(owner, self.lr_scheduler)
            if asked:
                given = overridden(owner, self.lr_scheduler, self.learning_rate, write=False)
                self._set("lr_scheduler", given)
            self._set("learning_rate", None)
        elif self.learning_rate is None:
            self._set("learning_rate", float(self._default_learning_rate()))
        if self.lazy_update and not self._rowwise:
            warn_caller(
                f"{owner}: lazy_update=True changes nothing, as an update needs the whole weight."
            )
        if not 0 <= self.begin_num_update < MOST_UPDATES:
            raise ValueError(
                f"{owner}: begin_num_update must be in [0, {MOST_UPDATES}), "
                f"got {self.begin_num_update}."
            )
        for field in ("lr_mult", "wd_mult"):
            given = getattr(self, field)
            if given is not None and not isinstance(given, Multipliers):
                self._set(field, Multipliers.checked(owner, field, given))
        if self.param_idx2name is not None:
            if not isinstance(self.param_idx2name, Mapping):
                raise TypeError(
                    f"{owner}: param_idx2name must be a mapping of indices to names, "
                    f"got {self.param_idx2name!r}."
                )
            for index, name in self.param_idx2name.items():
                if not isinstance(name, str):
                    raise TypeError(
                        f"{owner}: param_idx2name[{index!r}] must be a string, got {name!r}."
                    )
            self._set("param_idx2name", FrozenMap(self.param_idx2name))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def _default_learning_rate(cls) -> float:
        return cls.__dataclass_fields__["learning_rate"].default  # pyright: ignore[reportAttributeAccessIssue]

    def replace(self: Self, **changes: Any) -> Self:
        """Returns a copy with some hyperparameters changed, checked like a new definition."""
        if changes.get("lr_scheduler") is not None:
            changes.setdefault("learning_rate", None)
        return super().replace(**changes)

    # What an algorithm says of itself.

    def _slots(self, weight: jax.Array, index: Hashable) -> Any:
        """The first slots of one weight, in its dtype."""
        del weight, index
        return ()

    def _made_with(self, slots: Any) -> Any:
        """What `_slots_by` was when these slots were made, if they do not serve as it is now."""
        del slots

    def _rates(self, lr: Any, wd: Any, t: Any) -> Any:
        """The scalars of update `t`: Python numbers on the host, or traced."""
        del t
        return Rates(lr, wd)

    def _idle(self, rates: Any) -> jax.Array | None:
        """Whether the update leaves everything as it is: a scalar, None for never."""
        del rates
        return None

    def _adapt(self, rates: Any, weight: jax.Array, grad: jax.Array) -> Any:
        """Rates that depend on the whole weight, as it is stored, and the whole gradient."""
        del weight, grad
        return rates

    def _adapts(self, name: str) -> bool:
        """Whether `_adapt` is for the weight of this name."""
        del name
        return True

    def _rule(self, rates: Any, weight: jax.Array, grad: jax.Array, slots: Any) -> Any:
        """One update of one weight: the new weight and slots."""
        raise NotImplementedError(f"{type(self).__name__} must define _rule.")

    def _row_rule(self, rates: Any, weight: jax.Array, grad: jax.Array, slots: Any) -> Any:
        """`_rule` for row-sparse gradients; apart only where MXNet rounds in another order."""
        return self._rule(rates, weight, grad, slots)

    def _check_weight(self, weight: Any) -> None:
        """Raises ValueError for a weight that the algorithm cannot have."""
        del weight

    # Names, multipliers and rates of one weight.

    def _name(self, index: Hashable) -> str:
        return str((self.param_idx2name or {}).get(index, index))

    def _multipliers(self, index: Hashable) -> tuple[Any, Any]:
        """The factors of learning rate and decay, None where nothing was said."""
        name = (self.param_idx2name or {}).get(index)
        wd_mult = find(self.wd_mult, index, name)
        if wd_mult is None and name is not None and not name.endswith(self._decaying):
            wd_mult = ZERO
        return find(self.lr_mult, index, name), wd_mult

    def _without_weight(self, names: Sequence[str]) -> list[str]:
        called = {name: self._name(name) for name in names}
        every = {*called, *called.values()}
        return [
            nobody(f"{field}[{key!r}]", names)
            for field in ("lr_mult", "wd_mult")
            for key in getattr(self, field) or ()
            if key not in every and not any(matches(key, name) for name in called.values())
        ]

    def _rates_at(self, t: jax.Array, lr_mult: Any, wd_mult: Any, dtype: Any) -> Any:
        """The rates of update `t`, traced."""
        lr = self.learning_rate
        if self.lr_scheduler is not None:
            lr = self._scheduled(t - self._schedule_lag)
        opt, lr, lr_mult, wd_mult = in_precision((self, lr, lr_mult, wd_mult), dtype)
        lr = lr if lr_mult is None else lr * lr_mult
        wd = opt.wd if wd_mult is None else opt.wd * wd_mult
        # Rates may ask for more of a number than a rule does.
        return without_zero_decay(opt._rates(lr, 0.0 if wd is ZERO else wd, t))

    def _scheduled(self, t: jax.Array) -> Any:
        try:
            return check_rate(self.lr_scheduler(t))  # pyright: ignore[reportOptionalCall]
        except (
            ConcretizationTypeError,
            TracerArrayConversionError,
            TracerIntegerConversionError,
        ) as error:
            raise TypeError(
                f"{type(self).__name__}: lr_scheduler must take a traced count: jnp.where and lax "
                "in place of if, int() and NumPy; a stateful Optimizer takes any function."
            ) from error

    # What the public functions do.

    def _create(self, call: str, index: Hashable, weight: Any, *, masters: bool) -> State:
        weight = self._floating(call, index, weight)
        master = self._master(weight) if masters else None
        full = weight if master is None else master
        return State(self._first_count(), self._checked_slots(call, index, full), master)

    def _update(self, index: Hashable, weight: Any, grad: Any, state: State) -> Any:
        if self._slots_by is not None:
            self._check_form(state, index)
        own = is_own_program()
        key = ("update", index, own), double_precision()
        try:
            # What a call costs is for the most part what Python does here.
            found = self.__dict__.get("_cache", _NOTHING).get(key)
        except TypeError:
            raise TypeError(
                f"{type(self).__name__}.update: index must be hashable, got {index!r}."
            ) from None
        if found is None:
            prepare = functools.partial(self._prepared, index, own and on_cpu())
            found = self._remembered(key, prepare)
        return found[0](found[1], weight, grad, state)

    def _init(self, params: Any) -> State:
        names, weights, _ = flatten_with_names(params)
        pairs = zip(names, weights, strict=True)
        weights = [self._floating("init", name, weight) for name, weight in pairs]
        states = [
            self._create("init", name, weight, masters=True)
            for name, weight in zip(names, weights, strict=True)
        ]
        return self._packed(names, weights, states, self._first_count())

    def _step(self, params: Any, grads: Any, state: State, where: Any, donate: bool) -> Any:
        self._check_form(state, WHOLE)
        own = makes_own_program(getattr(state.slots, "groups", ())[:1])
        key = ("step", donate, own), double_precision()
        run, numbers = self._remembered(key, lambda: self._prepared_step(donate, own))
        return run(numbers, params, state, grads, where)

    def _pack(self, params: Any, states: Any) -> State:
        names, weights, leaves = flatten_states(params, states)
        weights = [jnp.asarray(w) if isinstance(w, float) else w for w in weights]
        made = slots_by_shape(self)
        for name, weight, leaf in zip(names, weights, leaves, strict=True):
            check_arrays(self, weight, weight, leaf.slots, leaf.master, name, made)
        check_form(self, [leaf.slots for leaf in leaves], names)
        counts = [leaf.num_update for leaf in leaves]
        known = {int(count) for count in counts if not isinstance(count, Tracer)}
        if len(known) > 1:
            raise MismatchError(f"all num_update must be equal, got {sorted(known)}.")
        return self._packed(names, weights, leaves, counts[0] if counts else self._first_count())

    def _packed(self, names: Any, weights: Any, states: Any, num_update: Any) -> State:
        kinds = [
            (self._adapts(self._name(name)), jax.tree.structure(state))
            for name, state in zip(names, states, strict=True)
        ]
        layout = Layout.of(weights, kinds, names)
        slots = layout.pack([state.slots for state in states])
        return State(num_update, slots, layout.pack([state.master for state in states]))

    # Pieces of the above.

    def _check_form(self, state: Any, index: Hashable) -> None:
        del index
        if self._slots_by is not None and isinstance(state, State):
            slots = state.slots
            check_form(self, slots.groups if isinstance(slots, Packed) else (slots,))

    def _first_count(self) -> jax.Array:
        return jnp.asarray(self.begin_num_update, jnp.int32)

    def _floating(self, call: str, index: Hashable, weight: Any) -> Any:
        if isinstance(weight, float):
            weight = jnp.asarray(weight)
        try:
            check_array("weight", weight)
        except WrongKindError as error:
            raise explained(f"{type(self).__name__}.{call}", error, index) from None
        return weight

    def _checked_slots(self, call: str, index: Hashable, weight: Any) -> Any:
        try:
            self._check_weight(weight)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}.{call}({index!r}): {error}") from None
        slots = self._slots(weight, index)
        if type(slots) not in self._slot_types:
            kinds = ", ".join(kind.__name__ for kind in self._slot_types)
            raise TypeError(
                f"{type(self).__name__}._slots must return one of _slot_types, ({kinds},), "
                f"got {type(slots).__name__}."
            )
        return slots

    def _master(self, weight: Any) -> Any:
        if weight.dtype not in HALF:
            return None
        if self.multi_precision:
            return weight.astype(jnp.float32)
        _warn_of_half_precision(type(self).__name__)
        return None

    def _reduced(self: Self) -> Self:
        return self._with(wd=zero_or(self.wd))

    def _scaled_by(self: Self, factor: Any) -> Self | None:
        # What other rules do with `rescale_grad` is not known.
        if self._holds_gradients or not is_known(self._rule):
            return None
        return self._with(rescale_grad=self.rescale_grad * factor)

    def _only(self: Self, index: Hashable) -> tuple[Self, Hashable]:
        lr_mult, wd_mult = self._multipliers(index)
        name = self._name(index)
        key = "" if self._adapts(name) == self._adapts("") else name
        bare = self._with(
            lr_mult=None if lr_mult is None else Multipliers({key: lr_mult}),
            wd_mult=None if wd_mult is None else Multipliers({key: zero_or(wd_mult)}),
            param_idx2name=None,
        )
        return bare, key

    def _without_tables(self: Self) -> Self:
        """The same for what knows its multipliers and names already."""
        return self._with(lr_mult=None, wd_mult=None, param_idx2name=None)

    def _prepared(self, index: Hashable, own: bool) -> tuple[Any, Any]:
        """The compiled update of one weight, and its numbers.

        The multipliers are looked up and the rest of the tables left out, so that all weights
        share their compiled functions.
        """
        bare = self._reduced()._without_tables()
        lr_mult, wd_mult = self._multipliers(index)
        structure, numbers = flattened((bare, lr_mult, zero_or(wd_mult)))
        key = structure, self._adapts(self._name(index)), own
        return program_of(self, _compiled.update, *key, own=own), numbers

    def _prepared_step(self, donate: bool, own: bool) -> tuple[Any, Any]:
        """The compiled update of a tree, and its numbers."""
        structure, numbers = flattened(self._reduced())
        return program_of(self, _compiled.step, structure, donate, own, own=own), numbers

    def _remembered(self, key: Hashable, prepare: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """What `prepare` gives, from its first call on; its numbers are on the device then."""
        cache = self.__dict__.setdefault("_cache", {})
        if key in cache:
            return cache[key]
        run, numbers = prepare()
        if not isinstance(numbers, np.ndarray):
            return run, numbers
        on_device = jnp.asarray(numbers)
        if isinstance(on_device, Tracer) or not _free(on_device):
            # Made under a trace or a mesh, the array would be of no use outside it.
            return run, numbers
        cache[key] = run, on_device
        return run, on_device


def _free(array: jax.Array) -> bool:
    """Whether an array is bound to no device and no mesh."""
    return isinstance(array.sharding, SingleDeviceSharding) and not array.committed


_warned: set[str] = set()


def _warn_of_half_precision(owner: str) -> None:
    if owner not in _warned:
        _warned.add(owner)
        warn_caller(
            f"{owner}: state of half-precision weights is kept in half precision, which loses "
            "small updates; multi_precision=True keeps float32 masters."
        )
