"""The base of all algorithms: common hyperparameters, and what an algorithm defines."""

import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.errors import (
    ConcretizationTypeError,
    TracerArrayConversionError,
    TracerIntegerConversionError,
)

from jaxmxopt._core.checks import (
    MismatchError,
    WrongKindError,
    check_array,
    check_arrays,
    check_packed,
    check_rate,
    check_rates,
)
from jaxmxopt._core.config import FrozenMap, Node, NonNegative, Real, Static
from jaxmxopt._core.definition import Definition, Maker
from jaxmxopt._core.engine import Given, advance, in_precision
from jaxmxopt._core.exported import exportable
from jaxmxopt._core.layout import Layout, Packed
from jaxmxopt._core.names import Multipliers, Tree, find, matches, nobody
from jaxmxopt._core.numeric import is_zero
from jaxmxopt._core.overriding import check_scheduler, overridden, warn_caller, warn_of_zeros
from jaxmxopt._core.rates import Rates, TracedRates, opened, sealed
from jaxmxopt._core.slots import NUMBERS, Like, Slot, as_now, slots_said
from jaxmxopt._core.state import State, common, counted

__all__ = ["HALF", "MOST_UPDATES", "Names", "OptimizerDef", "Unasked"]

Self = TypeVar("Self", bound="OptimizerDef")
# Counts are int32; a count that has reached the largest one stays there.
MOST_UPDATES = 2**31 - 1
HALF = frozenset(
    jnp.dtype(kind)
    for name, kind in vars(jnp).items()
    if name.startswith(("float16", "bfloat16", "float8", "float4"))
)


class Unasked(float):
    """A default learning rate: it gives way to a scheduler's."""


class Names(NamedTuple):
    """Rules by which the name of a weight decides.

    Attributes:
        decay: endings of the names that decay by default where `param_idx2name` gives names.
        adapt_not: endings of the names of weights that `adapt` is not for.
    """

    decay: tuple[str, ...] = ("_weight", "_gamma")
    adapt_not: tuple[str, ...] = ()


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

    # What a rule may be given in the place of a weight in its own shape. "elements": any
    # arrangement of the elements; "rows": some of the rows; "whole": nothing else; "matrices":
    # nothing else, and what it asks for by `batched` is computed for many weights at once.
    acts_on: ClassVar[Literal["elements", "rows", "whole", "matrices"]] = "whole"
    names: ClassVar[Names] = Names()
    # How many updates behind this one the schedule is asked: LBSGD reads its rate, then counts.
    schedule_lag: ClassVar[int] = 0
    # False for AdaDelta, on which the learning rate has no effect.
    _has_rate: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        own = vars(cls).get("learning_rate")
        if own is not None:
            cls.learning_rate = Unasked(own)
        super().__init_subclass__(**kwargs)
        if cls.acts_on not in ("elements", "rows", "whole", "matrices"):
            raise TypeError(
                f"{cls.__name__}.acts_on must be 'elements', 'rows', 'whole' or 'matrices', got "
                f"{cls.acts_on!r}."
            )
        for old in ("_slots", "_rates", "_adapt", "_rule", "_row_rule"):
            if old in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{old} must be called {old.removeprefix('_row').lstrip('_')}: "
                    "methods of an algorithm have names without an underscore since version 0.1.0."
                )
        returned = getattr(cls.slots, "__annotations__", {}).get("return")
        for kind in (returned, *typing.get_args(returned)):
            if isinstance(kind, type) and hasattr(kind, "_fields"):
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
        if not self._has_rate:
            warn_of_zeros(owner, self.lr_mult)
        if self.lr_scheduler is not None:
            check_scheduler(owner, self.lr_scheduler)
            if asked:
                given = overridden(owner, self.lr_scheduler, self.learning_rate, write=False)
                self._set("lr_scheduler", given)
            self._set("learning_rate", None)
        elif self.learning_rate is None:
            self._set("learning_rate", float(self._default_learning_rate()))
        if self.lazy_update and self.acts_on in ("whole", "matrices"):
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
        """Return a copy with some hyperparameters changed, checked like a new definition."""
        if changes.get("lr_scheduler") is not None:
            changes.setdefault("learning_rate", None)
        return super().replace(**changes)

    # What an algorithm defines.

    def slots(self, like: Like) -> Any:
        """Return what is kept of a weight between updates: a NamedTuple of `Slot`, or `()`."""
        del like
        return ()

    def rates(self, lr: Any, wd: Any, t: Any) -> Any:
        """Return the numbers of update `t`: from Python's numbers on the host, or traced."""
        del t
        return Rates(lr, wd)

    def adapt(self, rates: Any, weight: jax.Array, grad: jax.Array) -> Any:
        """Return rates that depend on the whole weight, as it is stored, and the whole gradient."""
        del weight, grad
        return rates

    def rule(self, rates: Any, weight: jax.Array, grad: jax.Array, slots: Any) -> Any:
        """Return the new weight and slots: one update of one weight."""
        raise NotImplementedError(f"{type(self).__name__} must define rule.")

    def check_weight(self, weight: Like) -> None:
        """Raise ValueError for a weight that the algorithm cannot have."""
        del weight

    # Names, multipliers and rates of one weight.

    def _name(self, index: Hashable) -> str:
        return str((self.param_idx2name or {}).get(index, index))

    def _adapts_to(self, name: Hashable) -> bool:
        own = type(self).adapt is not OptimizerDef.adapt
        return own and not self._name(name).endswith(self.names.adapt_not)

    def _multipliers(self, index: Hashable) -> tuple[Any, Any]:
        """Return the factors of learning rate and decay."""
        name = (self.param_idx2name or {}).get(index)
        decays = name is None or name.endswith(self.names.decay)
        wd_mult = find(self.wd_mult, index, name, 1.0 if decays else 0.0)
        return find(self.lr_mult, index, name, 1.0), wd_mult

    def _unmatched(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        called = {name: self._name(name) for name in shapes}
        every = {*called, *called.values()}
        return [
            nobody(f"{field}[{key!r}]", shapes)
            for field in ("lr_mult", "wd_mult")
            for key in getattr(self, field) or ()
            if key not in every and not any(matches(key, name) for name in called.values())
        ]

    def _rates_at(self, t: jax.Array, lr_mult: Any, wd_mult: Any, dtype: Any) -> Any:
        """Return the rates of update `t`, traced."""
        lr = self.learning_rate
        if self.lr_scheduler is not None:
            lr = self._scheduled(t)
        opt, lr, lr_mult, wd_mult = in_precision((self, lr, lr_mult, wd_mult), dtype)
        wd = 0.0 if is_zero(opt.wd) or is_zero(wd_mult) else opt.wd * wd_mult
        # Rates may ask for more of a number than a rule does.
        return check_rates(opt.rates(lr * lr_mult, wd, t))

    def _scheduled(self, t: Any) -> Any:
        try:
            return check_rate(self.lr_scheduler(t - self.schedule_lag))  # pyright: ignore[reportOptionalCall]
        except (
            ConcretizationTypeError,
            TracerArrayConversionError,
            TracerIntegerConversionError,
        ) as error:
            raise TypeError(
                f"{type(self).__name__}: lr_scheduler must take a traced count: jnp.where and lax "
                "in place of if, int() and NumPy; a stateful Optimizer takes any function."
            ) from error

    # What every definition implements.

    def _begin(self, tree: Tree, maker: Maker) -> State:
        states: list[tuple[Any, Any]] = []
        for name, weight in zip(tree.names, tree.leaves, strict=True):
            master = self._first_master(name, weight, maker)
            dtype = weight.dtype if master is None else jnp.float32
            slots = self._first_slots(Like(weight.shape, dtype, name))
            made = jax.tree.map(lambda slot, weight=weight: maker.slot(slot, weight), slots)
            states.append((made, master))
        count = maker.slot(Like((), jnp.int32).full(self.begin_num_update, (), jnp.int32), None)
        if not tree.whole:
            return State(count, *states[0])
        return self._laid_out(tree, count, states, maker.stacked)

    def _first_master(self, name: Hashable, weight: Any, maker: Maker) -> Any:
        """Return the master that a weight is to have, None if it is to have none."""
        check_array("weight", weight, name)
        if not maker.masters or weight.dtype not in HALF:
            return None
        if self.multi_precision:
            return maker.slot(Like(weight.shape, jnp.float32, name).copy(), weight)
        _warn_of_half_precision(type(self).__name__)
        return None

    def _first_slots(self, like: Like) -> Any:
        """Return the slots of a weight, not yet made, of a weight that may have them."""
        try:
            self.check_weight(like)
        except ValueError as error:
            raise MismatchError(str(error), like.index) from None
        slots = slots_said(self, like)
        for leaf in jax.tree.leaves(slots):
            if not isinstance(leaf, Slot):
                raise WrongKindError(
                    f"slots must return slots that `like` makes, got {type(leaf).__name__}.",
                    like.index,
                )
            fits = leaf.axes in (tuple(range(like.ndim)), (None,) * len(leaf.axes))
            if self.acts_on == "elements" and not fits:
                raise MismatchError(
                    "slots of an algorithm that acts on elements must have all axes of the weight "
                    f"or none, got axes {leaf.axes}; declare acts_on = 'rows' or 'whole'.",
                    like.index,
                )
        if hasattr(type(slots), "_fields"):
            exportable(type(slots))
        return slots

    def _laid_out(
        self, tree: Tree, count: Any, states: Sequence[tuple[Any, Any]], stacked: Any
    ) -> State:
        """Return the state of a tree, given slots and master of every weight."""
        kinds = [
            (self._adapts_to(name), jax.tree.structure(state))
            for name, state in zip(tree.names, states, strict=True)
        ]
        layout = Layout.of(tree.leaves, kinds, [str(name) for name in tree.names])
        slots = layout.pack([slots for slots, _ in states], stacked)
        return State(count, slots, layout.pack([master for _, master in states], stacked))

    def _packed(self, tree: Tree, states: Sequence[State]) -> State:
        opt = opened(self)
        leaves = [jnp.asarray(w) if isinstance(w, float) else w for w in tree.leaves]
        for name, weight, state in zip(tree.names, leaves, states, strict=True):
            check_arrays(opt, weight, weight, state.slots, state.master, name, opt._is_traced())
        try:
            counts = [state.num_update for state in states]
            count = common("num_update", counts) if counts else jnp.int32(self.begin_num_update)
        except ValueError as error:
            raise MismatchError(str(error)) from None
        both = [(state.slots, state.master) for state in states]
        return self._laid_out(tree._replace(leaves=leaves), count, both, None)

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        slots, masters = state.slots, state.master
        if not tree.whole:
            layout = Layout(((0,),))
            slots, masters = Packed((slots,), layout), Packed((masters,), layout)
        opt = opened(self)
        slots = opt._in_classes_of_now(tree, slots)
        opt._check_weights(tree, slots, masters, given)
        t = counted(state.num_update)
        multipliers = [opt._multipliers(name) for name in tree.names]
        bare = opt._without_tables()
        rates = TracedRates(multipliers, lambda *args: bare._rates_at(t, *args))
        # By the names that rules know.
        named = tree._replace(names=[opt._name(name) for name in tree.names])
        rule = self._without_tables()._with(lr_scheduler=None)
        new, slots, masters = advance(rule, rates, named, slots, masters, given)
        if not tree.whole:
            return new, State(t, slots.groups[0], masters.groups[0])
        return new, State(t, slots, masters)

    def _in_classes_of_now(self, tree: Tree, slots: Any) -> Any:
        """Return laid out slots, those of a class that has been defined again in the new class."""
        if not isinstance(slots, Packed) or slots.layout.size != len(tree.leaves):
            return slots
        firsts = [tree.leaves[members[0]] for members in slots.layout.groups]
        pairs = zip(firsts, slots.groups, strict=True)
        return Packed(
            tuple(
                as_now(self, Like(weight.shape, weight.dtype), group)
                if hasattr(weight, "dtype")
                else group
                for weight, group in pairs
            ),
            slots.layout,
        )

    def _check_weights(self, tree: Tree, slots: Any, masters: Any, given: Given) -> None:
        """Raise unless weights, gradients and state belong together."""
        if tree.whole:
            check_packed(slots, masters, tree.leaves, tree.names)
        elif isinstance(slots.groups[0], Packed):
            raise WrongKindError(
                "state is of a tree of weights; give it to step, or take it apart with "
                "state.unpack.",
            )
        parts = zip(slots.layout.groups, slots.groups, masters.groups, strict=True)
        for members, group, master in parts:
            own = (group, master)
            if len(members) > 1:
                own = jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), own
                )
            for n in members:
                if given.grads[n] is not None:
                    name = tree.names[n] if tree.whole else None
                    grad = given.grads[n]
                    check_arrays(self, tree.leaves[n], grad, own[0], own[1], name, given.lenient)

    def _static_name(self, name: str) -> str:
        """Return a name that rules take for this one: most names are alike to them."""
        return "" if self._adapts_to(name) == self._adapts_to("") else name

    def _for(self, index: Hashable, shape: Sequence[int]) -> tuple[Definition, Hashable]:
        del shape
        lr_mult, wd_mult = self._multipliers(index)
        key = self._with(param_idx2name=None)._static_name(self._name(index))
        tables = {
            field: None if type(value) is float and value == 1.0 else Multipliers({key: value})
            for field, value in (("lr_mult", lr_mult), ("wd_mult", wd_mult))
        }
        return self._with(param_idx2name=None, **tables), key

    def _asked(self: Self, state: Any) -> Self:
        lr = self._scheduled(counted(state.num_update))
        return self._with(lr_scheduler=None, learning_rate=lr)

    def _reduced(self: Self) -> Self:
        known: dict[str, Any] = {
            name: sealed(_as_known(getattr(self, name))) for name in self._deciding()
        }
        known["wd"] = sealed(self.wd)
        if self.wd_mult is not None:
            known["wd_mult"] = Multipliers((k, sealed(v)) for k, v in self.wd_mult.items())
        return self._with(**known)

    def _is_traced(self) -> bool:
        return any(isinstance(getattr(self, name), Tracer) for name in self._deciding())

    def _deciding(self) -> tuple[str, ...]:
        """Return the names of the numbers that decide, by being 0 or not, which slots there are."""
        kept = self.__dict__.get("_decides")
        if kept is None:
            numbers = {
                name: 0.5
                for name in self._leaf_names
                if isinstance(getattr(self, name), NUMBERS) and name not in _UNRELATED
            }
            full = self._form(numbers)
            kept = tuple(n for n in numbers if self._form({**numbers, n: 0.0}) != full)
            self.__dict__["_decides"] = kept
        return kept

    def _form(self, numbers: Mapping[str, Any]) -> Any:
        """Return the structure of the slots that there would be with other hyperparameters."""
        try:
            return jax.tree.structure(self._with(**numbers).slots(Like((2, 2), jnp.float32)))
        except Exception:  # The algorithm may be for weights of another shape; then none decides.
            return None

    def _without_tables(self: Self) -> Self:
        """Return the same for what knows its multipliers and names already."""
        return self._with(lr_mult=None, wd_mult=None, param_idx2name=None)


def _as_known(number: Any) -> Any:
    """Return Python's 0.0 for an array that is known to be 0, other numbers as they are."""
    if isinstance(number, NUMBERS) and not isinstance(number, (float, Tracer)) and number.ndim == 0:
        return 0.0 if float(number) == 0.0 else number
    return number


# What no algorithm's slots depend on.
_UNRELATED = frozenset({"learning_rate", "wd", "rescale_grad", "clip_gradient"})
_warned: set[str] = set()


def _warn_of_half_precision(owner: str) -> None:
    if owner not in _warned:
        _warned.add(owner)
        warn_caller(
            f"{owner}: state of half-precision weights has no masters, so an update below 1/512 "
            "of its weight in bfloat16, 1/4096 in float16, is lost; multi_precision=True keeps "
            "float32 masters, which cost 4 bytes for each element, and float32 slots, which cost "
            "2 more for each that is in half precision now."
        )
