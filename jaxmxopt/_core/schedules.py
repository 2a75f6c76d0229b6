"""Learning rates as functions of the number of updates: mxnet.lr_scheduler, made pure.

MXNet's answers depend on earlier calls. These are what a fresh scheduler of MXNet answers when
asked for updates 0, 1, 2, ... in order: a Python float in double precision for a host integer, an
array of JAX's default float for an array of integers, traced or not. Learning rates and factors
are leaves, so they may be traced or stacked; counts of updates are static.
"""

import bisect
import copy
import functools
import itertools
import math
import threading
import typing
from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError
from typing import Any, ClassVar, Literal, NoReturn, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.config import (
    Config,
    NonNegative,
    Real,
    Scalar,
    Static,
    UnitInterval,
    is_declared,
)

__all__ = [
    "CosineScheduler",
    "FactorScheduler",
    "LRScheduler",
    "MultiFactorScheduler",
    "PolyScheduler",
    "ValueOrObject",
]


class ValueOrObject:
    """Makes each subclass of a record a record too, or one of plain objects.

    A subclass that declares fields is a record of these as well, one that declares none and has no
    constructor of its own a record of the fields of its base. A constructor of its own makes plain
    objects: they may be written to, are equal to themselves alone and opaque to JAX, part of the
    structure without leaves.
    """

    _is_value: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if _declares_fields(cls):
            super().__init_subclass__(**kwargs)
            # Those of a frozen dataclass, which say too little.
            del cls.__setattr__, cls.__delattr__
            return
        cls._is_value = cls._is_value and "__init__" not in vars(cls)
        beyond: Any = super(Config, cls)  # pyright: ignore[reportArgumentType]
        beyond.__init_subclass__(**kwargs)
        tree: Any = cls
        if cls._is_value:
            jax.tree_util.register_pytree_with_keys(
                tree, tree._flatten_with_keys, tree._unflatten, tree._flatten
            )
        else:
            jax.tree_util.register_pytree_node(tree, lambda one: ((), one), lambda one, _: one)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_if_value(name, "assigned")
        if isinstance(value, Tracer):
            raise TypeError(
                f"{type(self).__name__}.{name} must be a known value, got a tracer: a scheduler "
                "that changes itself is for stateful optimizers."
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_if_value(name, "deleted")
        super().__delattr__(name)

    def _refuse_if_value(self, name: str, done: str) -> None:
        if not self._is_value:
            return
        what = f"{type(self).__name__}.{name} cannot be {done}"
        if name in getattr(self, "__dataclass_fields__", ()):
            hint = f"schedulers are immutable; replace({name}=...) gives another."
        else:
            hint = "schedulers are immutable; a subclass with an __init__ of its own is not."
        raise FrozenInstanceError(f"{what}: {hint}")

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) if self._is_value else self is other

    def __hash__(self) -> int:
        return super().__hash__() if self._is_value else object.__hash__(self)

    def __getstate__(self) -> Any:
        return super().__getstate__() if self._is_value else dict(self.__dict__)

    def __repr__(self) -> str:
        if self._is_value:
            return super().__repr__()
        return f"{type(self).__name__}(base_lr={getattr(self, 'base_lr', None)!r})"


def _declares_fields(cls: type) -> bool:
    """True if a class annotates a number with its range, or something static."""
    own = vars(cls).get("__annotations__", {})
    if not own:
        return False
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError:
        # Names for type checkers alone; a range is there when the class is made.
        return False
    return any(is_declared(hints[name]) for name in own)


WarmupMode = Literal["linear", "constant"]
Self = TypeVar("Self", bound="LRScheduler")
# Up to so many drops of a rate are multiplied out, and one in so many results is kept.
_COUNTED, _APART = 1_000_000, 256
# The kept results grow as they are asked for, by any thread.
_GROWING = threading.Lock()


class LRScheduler(ValueOrObject, Config):
    r"""Base of the schedules: a base learning rate, with a warmup before it.

    While :math:`n < w`, with :math:`w` = `warmup_steps`,

    .. math::
        \eta_n = b + (\eta - b)\,\frac{n}{w} \;\text{(linear)}, \qquad
        \eta_n = b \;\text{(constant)},

    with :math:`\eta` = `base_lr` and :math:`b` = `warmup_begin_lr`. The first update of a weight
    asks for :math:`n = 1`. A schedule of one's own is any callable from an integer to a number,
    or a subclass that overrides `__call__`:

    - One without an `__init__` is immutable and a pytree of its numbers, as the schedules here
      are. Fields of its own are declared (`power: NonNegative = 2.0`) and given by keyword.
    - One with an `__init__` of its own is an ordinary class, as in MXNet: its objects may change
      themselves, have MXNet's attributes (`count`, `base_lr_orig`), remember earlier calls, and are
      equal to themselves alone. They are for stateful optimizers. A definition takes them as any
      callable: asked once while JAX traces, so what they change then counts for nothing later.

    After mxnet.lr_scheduler.LRScheduler, with these differences: no call changes the schedule;
    `replace(base_lr=...)` takes full effect, also on the warmup; without a warmup negative
    counts are taken for 0.

    Attributes:
        base_lr: learning rate at the end of the warmup; not below `warmup_begin_lr`.
        warmup_steps: length of the warmup in updates, at least 0; static.
        warmup_begin_lr: learning rate at which the warmup begins.
        warmup_mode: `'linear'` rises in equal steps, `'constant'` stays at `warmup_begin_lr`;
            static.

    >>> LRScheduler(base_lr=0.4, warmup_steps=4).get_warmup_lr(1)
    0.1
    """

    base_lr: Real = 0.01
    warmup_steps: Static[int] = 0
    warmup_begin_lr: Real = 0.0
    warmup_mode: Static[WarmupMode] = "linear"

    def __init__(
        self,
        base_lr: Scalar = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: Scalar = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        self._fill(locals())

    def _fill(self, arguments: Mapping[str, Any]) -> None:
        self.__dict__.update((name, arguments[name]) for name in arguments if name != "self")
        self.__post_init__()
        if not self._is_value:
            self.__dict__.update(self._remembered())

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("warmup_steps", 0)
        begin, base = self.warmup_begin_lr, self.base_lr
        if isinstance(base, float) and base < 0 and begin == 0:
            self._refuse("base_lr must be at least warmup_begin_lr=0.0", base)
        if isinstance(begin, float) and isinstance(base, float) and begin > base:
            self._refuse(f"warmup_begin_lr must be at most base_lr={base}", begin)

    def _refuse(self, must: str, value: Any, error: Any = ValueError) -> NoReturn:
        raise error(f"{type(self).__name__}: {must}, got {value!r}.")

    def _at_least(self, name: str, least: int) -> None:
        if self.__dict__[name] < least:
            self._refuse(f"{name} must be at least {least}", self.__dict__[name])

    def replace(self: Self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked like a new schedule.

        That of an object (see above) has the attributes that the object has now.
        """
        if self._is_value:
            return super().replace(**changes)
        made = copy.copy(self)
        for name, value in changes.items():
            if not hasattr(self, name):
                raise TypeError(f"{type(self).__name__}.replace() got an unknown argument {name!r}")
            setattr(made, name, value)
        if "base_lr" in changes:
            made._rebase(changes["base_lr"])
        return made

    def _rebase(self, base_lr: Any) -> None:
        """Give an object another base rate, and all that it remembers of the old one."""
        self.base_lr = base_lr  # pyright: ignore[reportAttributeAccessIssue]
        kept = self.__dict__
        kept.update(dict.fromkeys(kept.keys() & {"base_lr_orig", "warmup_final_lr"}, base_lr))

    # What objects remember, under MXNet's names.

    def _remembered(self) -> dict[str, Any]:
        return {"warmup_final_lr": self.base_lr}

    def _walked(self, n: int) -> Any:
        """Return the schedule proper of an object, which goes on from the latest call."""
        return self._decayed(n)

    @overload
    def __call__(self, num_update: int) -> float: ...
    @overload
    def __call__(self, num_update: jax.Array) -> jax.Array: ...
    def __call__(self, num_update: Any) -> Any:
        """Return the learning rate of update number `num_update`.

        A host integer gives a float, unless a leaf of the schedule is an array; else an array.
        """
        if self._on_host(num_update):
            n = int(num_update)
            warm = self.warmup_steps and n < self.warmup_steps
            if self._is_value:
                lr = self._decayed(max(n, self.warmup_steps))
                return self.get_warmup_lr(n) if warm else lr
            return self.get_warmup_lr(n) if warm else self._walked(n)
        n = self._counts(num_update)
        lr = self._decayed_array(n)
        if not self.warmup_steps:
            return lr
        return jnp.where(n < _within(self.warmup_steps, n), self.get_warmup_lr(n), lr)

    def get_warmup_lr(self, num_update: Any) -> Any:
        """Return the learning rate of an update of the warmup, `num_update < warmup_steps`."""
        begin, steps = self.warmup_begin_lr, self.warmup_steps
        base = self.__dict__.get("warmup_final_lr", self.base_lr)
        if isinstance(num_update, (int, np.integer)) and num_update >= steps:
            self._refuse(f"num_update must be below warmup_steps={steps}", int(num_update))
        # Without a warmup MXNet divides by zero.
        length = float(max(steps, 1))
        if self._on_host(num_update):
            rise = (base - begin) * float(num_update) / length
            return begin + rise if self.warmup_mode == "linear" else begin
        begin, n = _array(begin), _array(self._counts(num_update))
        if self.warmup_mode == "constant":
            return begin + jnp.zeros_like(n)
        return begin + (_array(base) - begin) * (n / length)

    def _decayed(self, n: int) -> float:
        """Return the schedule proper in double precision, for `n >= warmup_steps`."""
        raise NotImplementedError(f"{type(self).__name__} must override __call__.")

    def _decayed_array(self, n: jax.Array) -> jax.Array:
        """Return the schedule proper; finite for every `n`, meant where `n >= warmup_steps`."""
        raise NotImplementedError(f"{type(self).__name__} must override __call__.")

    def _on_host(self, num_update: Any) -> bool:
        if not isinstance(num_update, (int, np.integer)):
            return False
        return all(isinstance(getattr(self, name), (int, float)) for name in self._leaf_names)

    def _counts(self, num_update: Any) -> jax.Array:
        if isinstance(num_update, (int, np.integer)):
            largest = jnp.iinfo(jnp.int32).max
            return jnp.int32(min(max(int(num_update), -largest), largest))
        kind = getattr(num_update, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.integer):
            must = "num_update must be an integer or an array of integers"
            self._refuse(must, num_update if kind is None else kind, error=TypeError)
        n = jnp.asarray(num_update)
        return n if n.dtype == jnp.int64 else n.astype(jnp.int32)


class FactorScheduler(LRScheduler):
    r"""Multiplies the learning rate by a factor every `step` updates, down to a floor.

    .. math::
        k = \max\Bigl(0, \Bigl\lfloor \frac{n - 1}{s} \Bigr\rfloor\Bigr), \qquad
        \eta_n = \eta \;\text{if}\; k = 0, \;\text{else}\; \max(\eta\,\gamma^k, m),

    with :math:`s` = `step`, :math:`\gamma` = `factor`, :math:`m` = `stop_factor_lr`. The drops
    fall on updates :math:`s + 1, 2s + 1, \ldots`, counted from 0: those a warmup hides have taken
    effect when it ends.

    After mxnet.lr_scheduler.FactorScheduler, whose learning rate stays low when asked for an
    earlier update, and whose documentation says :math:`\lfloor n / s \rfloor`. A negative factor
    is refused.

    Attributes:
        step: updates between two drops, at least 1; static.
        factor: in [0, 1].
        stop_factor_lr: learning rate below which no drop leads.

    >>> schedule = FactorScheduler(step=2, factor=0.5, base_lr=1.0)
    >>> [schedule(n) for n in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    step: Static[int]
    factor: UnitInterval = 1.0
    stop_factor_lr: Real = 1e-8

    def __init__(
        self,
        step: int,
        factor: Scalar = 1.0,
        stop_factor_lr: Scalar = 1e-8,
        base_lr: Scalar = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: Scalar = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        self._fill(locals())

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("step", 1)

    def _remembered(self) -> dict[str, Any]:
        return {**super()._remembered(), "count": 0}

    def _walked(self, n: int) -> Any:
        here: Any = self
        while n > here.count + self.step:
            here.count += self.step
            here.base_lr = max(self.base_lr * self.factor, self.stop_factor_lr)
        return self.base_lr

    def _decayed(self, n: int) -> Any:
        drops = max(0, (n - 1) // self.step)
        if drops == 0:
            return self.base_lr
        return max(_dropped(self.base_lr, self.factor, drops), self.stop_factor_lr)

    def _decayed_array(self, n: jax.Array) -> jax.Array:
        drops = (jnp.maximum(n, 1) - 1) // _within(self.step, n)
        base = _array(_start(self))
        dropped = jnp.maximum(base * _power(self.factor, drops), _array(self.stop_factor_lr))
        return jnp.where(drops == 0, base, dropped)


class MultiFactorScheduler(LRScheduler):
    r"""Multiplies the learning rate by a factor after each of the listed updates.

    .. math::
        \eta_n = \eta\,\gamma^{k}, \qquad k = \#\{i : n > s_i\},

    with :math:`s` = `step` and :math:`\gamma` = `factor`. Steps that a warmup hides have taken
    effect when it ends.

    After mxnet.lr_scheduler.MultiFactorScheduler, whose learning rate stays low when asked for an
    earlier update, and whose documentation has :math:`n \ge s_i`. A negative factor is refused.

    Attributes:
        step: the updates after which the learning rate drops: increasing, each at least 1;
            static, kept as a tuple.
        factor: in [0, 1].

    >>> schedule = MultiFactorScheduler(step=[2, 4], factor=0.1, base_lr=1.0)
    >>> [schedule(n) for n in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """

    step: Static[tuple[int, ...]]
    factor: UnitInterval = 1.0

    def __init__(
        self,
        step: Sequence[int],
        factor: Scalar = 1.0,
        base_lr: Scalar = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: Scalar = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        self._fill(locals())

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.step
        integers = isinstance(given, (list, tuple, range, np.ndarray)) and all(
            isinstance(step, (int, np.integer)) and not isinstance(step, bool) for step in given
        )
        if not integers:
            self._refuse("step must be a list of integers", given, error=TypeError)
        steps = tuple(int(step) for step in given)
        if not steps or steps[0] < 1 or any(a >= b for a, b in itertools.pairwise(steps)):
            self._refuse("step must be increasing integers of at least 1", list(steps))
        self.__dict__["step"] = steps

    def _remembered(self) -> dict[str, Any]:
        return {**super()._remembered(), "cur_step_ind": 0, "count": 0}

    def _walked(self, n: int) -> Any:
        here: Any = self
        while here.cur_step_ind < len(self.step) and n > self.step[here.cur_step_ind]:
            here.count = self.step[here.cur_step_ind]
            here.cur_step_ind += 1
            here.base_lr *= self.factor
        return self.base_lr

    def _decayed(self, n: int) -> Any:
        return _dropped(self.base_lr, self.factor, bisect.bisect_left(self.step, n))

    def _decayed_array(self, n: jax.Array) -> jax.Array:
        steps = jnp.asarray([_within(step, n) for step in self.step], n.dtype)
        drops = jnp.searchsorted(steps, n, method="compare_all")
        return _array(_start(self)) * _power(self.factor, drops)


class PolyScheduler(LRScheduler):
    r"""Lowers the learning rate to `final_lr` along a polynomial.

    .. math::
        \eta_n = f + (\eta - f)\,\Bigl(1 - \frac{\min(n, N) - w}{N - w}\Bigr)^p

    for :math:`n \ge w`, with :math:`f` = `final_lr`, :math:`N` = `max_update`, :math:`p` = `pwr`,
    :math:`w` = `warmup_steps`. After :math:`N` the learning rate stays.

    After mxnet.lr_scheduler.PolyScheduler, which beyond :math:`N` repeats its latest answer (and
    whose documentation says 0 there), and which divides by zero if :math:`N = w`: here the decay is
    then over when the warmup is. With :math:`N < w` it never begins, as in MXNet.

    Attributes:
        max_update: the update at which `final_lr` is reached, warmup included; at least 1; static.
        pwr: power of the decay, at least 0.
        final_lr: learning rate from `max_update` on.

    >>> schedule = PolyScheduler(max_update=4, base_lr=1.0, pwr=2)
    >>> [schedule(n) for n in (0, 1, 2, 4, 9)]
    [1.0, 0.5625, 0.25, 0.0, 0.0]
    """

    max_update: Static[int]
    pwr: NonNegative = 2.0
    final_lr: Real = 0.0

    def __init__(
        self,
        max_update: int,
        base_lr: Scalar = 0.01,
        pwr: Scalar = 2.0,
        final_lr: Scalar = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: Scalar = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        self._fill(locals())

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("max_update", 1)

    def _remembered(self) -> dict[str, Any]:
        return {**super()._remembered(), **_of_decay(self), "power": self.pwr}

    def _walked(self, n: int) -> Any:
        return _walked_decay(self, n)

    def _decayed(self, n: int) -> Any:
        power = self.pwr if self._is_value else self.__dict__["power"]
        return self.final_lr + (_start(self) - self.final_lr) * (1 - _done_of(1, self, n)) ** power

    def _decayed_array(self, n: jax.Array) -> jax.Array:
        left = jnp.power(_left(n, self.warmup_steps, self.max_update), _array(self.pwr))
        final = _array(self.final_lr)
        return final + (_array(_start(self)) - final) * left


class CosineScheduler(LRScheduler):
    r"""Lowers the learning rate to `final_lr` along half a wave of the cosine.

    .. math::
        \eta_n = f + \frac{\eta - f}{2}\,\Bigl(1 + \cos \pi \frac{\min(n, N) - w}{N - w}\Bigr)

    for :math:`n \ge w`, with :math:`f` = `final_lr`, :math:`N` = `max_update`,
    :math:`w` = `warmup_steps`. After :math:`N` the learning rate stays.

    After mxnet.lr_scheduler.CosineScheduler, with the differences told under `PolyScheduler`.

    Attributes:
        max_update: the update at which `final_lr` is reached, warmup included; at least 1; static.
        final_lr: learning rate from `max_update` on.

    >>> schedule = CosineScheduler(max_update=4, base_lr=1.0)
    >>> [schedule(n) for n in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """

    max_update: Static[int]
    final_lr: Real = 0.0

    def __init__(
        self,
        max_update: int,
        base_lr: Scalar = 0.01,
        final_lr: Scalar = 0.0,
        warmup_steps: int = 0,
        warmup_begin_lr: Scalar = 0.0,
        warmup_mode: WarmupMode = "linear",
    ) -> None:
        self._fill(locals())

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("max_update", 1)

    def _remembered(self) -> dict[str, Any]:
        return {**super()._remembered(), **_of_decay(self)}

    def _walked(self, n: int) -> Any:
        return _walked_decay(self, n)

    def _decayed(self, n: int) -> Any:
        wave = 1 + math.cos(_done_of(math.pi, self, n))
        return self.final_lr + (_start(self) - self.final_lr) * wave / 2

    def _decayed_array(self, n: jax.Array) -> jax.Array:
        # (1 + cos(pi x)) / 2 cancels as x nears 1; this does not.
        left = _left(n, self.warmup_steps, self.max_update)
        final = _array(self.final_lr)
        return final + (_array(_start(self)) - final) * jnp.square(jnp.sin(left * (math.pi / 2)))


def _array(value: Scalar) -> jax.Array:
    return jnp.asarray(value, jnp.result_type(float))


def _within(count: int, n: jax.Array) -> int:
    """Brings a count of any size into the range of the array it meets; no answer changes."""
    return min(count, jnp.iinfo(n.dtype).max)


def _dropped(base: Any, factor: Any, drops: int) -> Any:
    """Multiplies by the factor once for every drop, as MXNet does: a power rounds otherwise."""
    if drops > _COUNTED:
        return base * factor**drops
    with _GROWING:
        marks = _marks(base, factor)
        while len(marks) <= drops // _APART:
            marks.append(_multiplied(marks[-1], factor, _APART))
    return _multiplied(marks[drops // _APART], factor, drops % _APART)


@functools.lru_cache(maxsize=64)
def _marks(base: float, factor: float) -> list[float]:
    """Return the rates after every `_APART` drops, as far as anybody has asked."""
    del factor
    return [base]


def _multiplied(rate: float, factor: float, times: int) -> float:
    for _ in range(times):
        rate *= factor
    return rate


def _power(factor: Scalar, drops: jax.Array) -> jax.Array:
    """Return `factor ** drops` to a few units of rounding, also for millions of drops."""
    k = _array(drops)
    if not isinstance(factor, float):
        return jnp.power(_array(factor), k)
    rounded = k.dtype.type(factor)
    # What rounding takes from the factor is given back once for every drop.
    lost = math.log1p(factor / float(rounded) - 1) if rounded else 0.0
    if lost == 0:
        return jnp.power(rounded, k)
    return jnp.power(rounded, k) * jnp.exp(jnp.minimum(k * lost, 80.0))


def _start(schedule: LRScheduler) -> Any:
    """Return the rate that a decay begins with; the `base_lr` of an object is the rate it is at."""
    kept = schedule.__dict__
    return kept.get("base_lr_orig", kept.get("warmup_final_lr", schedule.base_lr))


def _of_decay(schedule: Any) -> dict[str, Any]:
    """Return the attributes that objects remember of a decay."""
    steps = schedule.max_update - schedule.warmup_steps
    return {"base_lr_orig": schedule.base_lr, "max_steps": steps}


def _done_of(whole: float, schedule: Any, n: int) -> float:
    """Return the share of a decay that is done, rounded as in MXNet: multiplied, then divided."""
    done, total = _done(n, schedule.warmup_steps, schedule.max_update)
    return whole * done / (schedule.__dict__.get("max_steps") or total)


def _walked_decay(schedule: Any, n: int) -> Any:
    """Return the rate of an object's decay; past its end the latest one, as in MXNet."""
    if n <= schedule.max_update:
        schedule.base_lr = schedule._decayed(n)
    return schedule.base_lr


def _done(n: int, warmup: int, last: int) -> tuple[int, int]:
    """Return the updates of a decay that are done, and all of them."""
    if last > warmup:
        return min(n, last) - warmup, last - warmup
    return (1, 1) if last == warmup else (0, 1)


def _left(n: jax.Array, warmup: int, last: int) -> jax.Array:
    """Return the share of a decay that is still to come, in [0, 1]."""
    if last <= warmup:
        return _array(jnp.full_like(n, last < warmup))
    end = _within(last, n)
    # Subtracted as integers: nothing is lost near the end.
    left = _array(end - jnp.clip(n, _within(warmup, n), end)) + float(last - end)
    return left / float(last - warmup)
