"""The stateful optimizer: mxnet.optimizer.Optimizer around a definition.

Counts, multipliers and the schedule are Python numbers on the host, in double precision, and are
looked up anew at every update. So whatever a training loop changes between two updates counts from
the next one on.
"""

import copy
import functools
import math
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast

import jax
import numpy as np
from jax.core import Tracer

from jaxmxopt._core.algorithm import HALF, OptimizerDef, Unasked
from jaxmxopt._core.config import NonNegative, as_number, nearest
from jaxmxopt._core.definition import Definition, instead
from jaxmxopt._core.names import Multipliers, find, matches
from jaxmxopt._core.overriding import check_scheduler, overridden, warn_caller, warn_of_zeros
from jaxmxopt._core.state import MasterState
from jaxmxopt._stateful import updates
from jaxmxopt._stateful.hyperparameters import (
    COMMON,
    Hyperparameter,
    NotMade,
    SignatureOfInit,
    Undefined,
    around,
    check_new,
    inside,
    plain,
)

__all__ = ["Optimizer"]

Class = TypeVar("Class", bound=type)
Init = TypeVar("Init", bound=Callable[..., None])


class _Default(int):
    """A default that gives way to what a definition says; shown as the value it stands for."""

    shown: int

    def __new__(cls, value: int) -> Any:
        self = super().__new__(cls, value)
        self.shown = value
        return self

    def __repr__(self) -> str:
        return repr(self.shown)


# Arguments that stand beside a definition: it has no field for some, and a schedule that the
# definition holds is not written to.
_BESIDE = ("sym", "param_dict", "learning_rate", "lr_scheduler")
_ONE, _NO_DECAY, _NO_UPDATES, _FALSE = Unasked(1.0), Unasked(0.0), _Default(0), _Default(False)


def _rescale_grad_first(init: Init) -> Init:
    """Let a number stand first, as in MXNet, where a constructor takes a definition."""
    numbers = (int, float, np.number, np.ndarray, jax.Array)

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if args and isinstance(args[0], numbers) and not isinstance(args[0], bool):
            args = (None, *args)
        init(self, *args, **kwargs)

    wrapped: Any = __init__
    return wrapped


class Optimizer:
    """An optimizer with MXNet's interface: mutable, counting its updates itself.

    Wraps a definition, `Optimizer(jaxmxopt.Adam(beta1=0.8), learning_rate=3e-4)`: what is given
    beside it overrides what it says. The classes of `jaxmxopt.optimizer` do that under MXNet's
    own signatures. Or it is the base of a class that brings its own `update`, as in MXNet.

    The hyperparameters of the definition are attributes, which may be set between two updates and
    count from the next one on, without a recompile: `rescale_grad`, `lr`, `wd`, multipliers, the
    algorithm's own numbers (`momentum`). For them `Optimizer(definition)` is of a subclass of its
    own, made for the class of the definition. The counts live on the host: inside `jax.jit` use
    `definition`.

    Around a wrapper such as `EMA(Adam())` states are those of the definition and count for
    themselves. Hyperparameters read as those of the first definition inside that has them, and are
    written to all. A list of weights is updated as one tree where all of them have been updated
    equally often, else part by part; what looks at all weights together, as `ClipGlobalNorm` does,
    refuses such a list. A transformation of optax takes one weight a call, or all of them in a
    `Trainer`.

    Args:
        definition: an algorithm or a wrapper; None where a subclass has its own `update`. A number
            in its place is `rescale_grad`, MXNet's first argument, and the others follow it.
        rescale_grad: every gradient is multiplied by it first.
        param_idx2name: names of indices, for the multipliers.
        wd: weight decay, 0 or more.
        clip_gradient: limits the elements of the gradient; None, 0 and below mean no limit.
        learning_rate: 0 or more. None: the scheduler's `base_lr` if there is one, else 0.01 or
            the algorithm's own default. A given one overrides the scheduler's, with a warning if
            somebody had chosen that. An immutable scheduler is replaced by another; of any
            other object `base_lr` is set, as in MXNet.
        lr_scheduler: any callable from an update count to a learning rate.
        sym: anything with `attr_dict()` and `list_arguments()`, whose `__lr_mult__` and
            `__wd_mult__` are multipliers by name.
        begin_num_update: the count that indices start from.
        multi_precision: float32 masters for weights of fewer than 32 bits.
        param_dict: by index, anything with `lr_mult` and `wd_mult`, which go before all other
            multipliers. Neither copied nor pickled with the optimizer.

    Attributes:
        aggregate_num: how many weights one call of `update` takes, 0 for one weight and no list. A
            subclass with an `update` of its own says it here, by a class attribute or in its
            constructor. Otherwise it is called with lists if its arguments are named so, as in
            `update(self, indices, weights, grads, states)`, or if it brings
            `update_multi_precision` to SGD, ccSGD, LARS or LAMB, which MXNet calls with lists.
        idx2name: names of indices.
        sym_info: `(attr_dict(), list_arguments())` of the symbol given, or `()`.
    """

    opt_registry: ClassVar[dict[str, type[Any]]] = {}
    # The classes of the definition, and of those inside it, whose fields the class declares.
    _kinds: ClassVar[tuple[type, ...]] = ()
    __signature__: Any = SignatureOfInit()

    lr_scheduler, wd, rescale_grad, clip_gradient, begin_num_update, multi_precision = map(
        Hyperparameter, COMMON
    )

    aggregate_num: int = cast(int, NotMade())
    idx2name: dict[Any, str]
    sym_info: tuple[Any, ...]
    param_dict: Mapping[Any, Any]
    # The definition, written to by the attributes. Where it is an algorithm, its learning rate and
    # its multipliers are not read: `_rate`, `_lr_mult` and `_wd_mult` are.
    _definition: Any = NotMade()
    # The definition and those inside it.
    _parts: Any = NotMade()
    _rate: Any = NotMade()
    _lr_mult: Any = NotMade()
    _wd_mult: Any = NotMade()
    # The compiled functions and numbers of the definition as it stands: see `updates.prepared`.
    _prepared: Any = None
    # True if a multiplier was set by a name, and no weight has come yet that could have it.
    _unnamed = False
    # True if a weight of a list has ever decayed: from then on no decay leads to a recompile.
    _decays = False
    # The largest count of any index, in calls.
    _largest: int = cast(int, NotMade())
    _all_index_update_counts: dict[Any, dict[Any, int]]
    _index_update_count: dict[Any, int]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an object of a class that declares the hyperparameters of the definition."""
        if not cls._kinds and args and isinstance(args[0], Definition):
            cls = around(cls, tuple(map(type, inside(args[0]))))
        return object.__new__(cls)

    @_rescale_grad_first
    def __init__(
        self,
        definition: Definition | None = None,
        /,
        rescale_grad: float = _ONE,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = _NO_DECAY,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = _NO_UPDATES,
        multi_precision: bool = _FALSE,
        param_dict: Mapping[Any, Any] | None = None,
    ) -> None:
        asked: dict[str, tuple[Any, Any]] = {
            "rescale_grad": (rescale_grad, _ONE),
            "param_idx2name": (param_idx2name, None),
            "wd": (wd, _NO_DECAY),
            "clip_gradient": (clip_gradient, None),
            "learning_rate": (learning_rate, None),
            "lr_scheduler": (lr_scheduler, None),
            "begin_num_update": (begin_num_update, _NO_UPDATES),
            "multi_precision": (multi_precision, _FALSE),
        }
        given = {name: value for name, (value, default) in asked.items() if value is not default}
        owner = type(self).__name__
        check_scheduler(owner, lr_scheduler)
        about_symbol = _symbol_info(owner, sym)
        made: Any = Undefined() if definition is None else definition
        if not isinstance(made, Definition):
            raise TypeError(
                f"{owner}: definition must be an OptimizerDef or a wrapper, got {definition!r}."
            )
        self._adopt(_overridden(owner, made, given))
        if self.lr_scheduler is not None and learning_rate is not None:
            vars(self)["_rate"] = float(learning_rate)
        write = vars(self)
        write.update(_lr_mult=None, _wd_mult=None, _largest=self.begin_num_update)
        write["_all_index_update_counts"] = {0: {}}
        self._set_current_context(0)
        self._check_multipliers("param_dict", param_dict)
        write["idx2name"] = dict(self._read("param_idx2name", None) or {})
        write["sym_info"] = about_symbol
        write["param_dict"] = param_dict or {}
        write["aggregate_num"] = updates.aggregation(self)
        if self._is_algorithm or sym is not None:
            self.set_lr_mult(self._read("lr_mult", None) or {})
            self.set_wd_mult(self._read("wd_mult", None) or {})

    # The definition.

    @property
    def definition(self) -> Any:
        """The immutable definition that does the same, as things stand now.

        Raises:
            TypeError: the optimizer brings its own `update`.
        """
        definition = self._definition
        if type(definition) is Undefined:
            raise TypeError(
                f"{type(self).__name__}.definition: an optimizer with an update of its own has "
                "no definition."
            )
        if not self._is_algorithm and not self.param_dict:
            return definition
        lr_mult, wd_mult = dict(self.lr_mult), dict(self.wd_mult)
        decaying = updates.decaying(definition)
        for name in self.idx2name.values() if self._is_algorithm else ():
            # `param_idx2name` of a definition says this by itself.
            if not name.endswith(decaying) and wd_mult.get(name) == 0.0:
                del wd_mult[name]
        for index in self.param_dict:
            lr_mult[index] = self._of_parameter(index, "lr_mult")
            wd_mult[index] = self._of_parameter(index, "wd_mult")
        tables = {"lr_mult": lr_mult or None, "wd_mult": wd_mult or None}
        if not self._is_algorithm:
            return definition.replace(**tables)
        return definition.replace(
            learning_rate=self.lr if self.lr_scheduler is None else None,
            param_idx2name=self.idx2name or None,
            **tables,
        )

    @property
    def _is_algorithm(self) -> bool:
        """True if the rates of an update come from here, and not from the definition."""
        return isinstance(self._definition, OptimizerDef)

    def _adopt(self, definition: Any) -> None:
        """Take over what a definition says."""
        if isinstance(definition, OptimizerDef):
            fields = definition.__getstate__()
            numbers = {name: plain(name, value) for name, value in fields.items()}
            changed = {name: value for name, value in numbers.items() if value is not fields[name]}
            definition = definition.replace(**changed) if changed else definition
        elif any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(definition)):
            raise TypeError(
                f"{type(self).__name__}: numbers of definition must be known, got a tracer: use "
                "the definition itself inside of jax.jit."
            )
        self._hold(definition)
        vars(self)["_rate"] = self._read("learning_rate", None)

    def _hold(self, definition: Any) -> None:
        """Keep a definition; what was prepared for the one before is dropped."""
        vars(self).update(_definition=definition, _parts=tuple(inside(definition)), _prepared=None)

    def _read(self, field: str, default: Any) -> Any:
        """Return a field of the outermost definition that has it."""
        parts = (vars(part) for part in self._parts)
        return next((part[field] for part in parts if field in part), default)

    def _write(self, field: str, value: Any) -> None:
        """Set a field of the definition, which refuses what it would refuse in a new one."""
        changes = {field: value}
        if field == "lr_scheduler":
            check_scheduler(type(self).__name__, value)
            changes["learning_rate"] = self._rate if value is None else None
        elif (old := self._read(field, self)) is value or old == value:
            return
        self._hold(self._definition.replace(**changes))
        if self.lr_scheduler is None and self._rate is None:
            vars(self)["_rate"] = self._read("learning_rate", None)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "learning_rate" and type(self).learning_rate is Optimizer.learning_rate:
            raise AttributeError(
                f"{type(self).__name__}.learning_rate cannot be assigned: set_learning_rate(lr) "
                "does it."
            )
        if "_definition" in vars(self) and name not in vars(self):
            check_new(self, name)
        if name == "param_dict":
            self._check_multipliers(name, value)
        object.__setattr__(self, name, value)
        if name in updates.RATES:
            # The next update asks it.
            vars(self)["_prepared"] = None

    # Learning rates.

    @property
    def lr(self) -> float | None:
        """The learning rate where there is no scheduler."""
        return self._rate

    @lr.setter
    def lr(self, value: float | None) -> None:
        value = as_number(type(self).__name__, "lr", plain("lr", value), NonNegative | None)
        if not self._is_algorithm and self.lr_scheduler is None and value != self._rate:
            self._hold(self._definition.replace(learning_rate=value))
        vars(self)["_rate"] = value

    @lr.deleter
    def lr(self) -> None:
        raise AttributeError(f"{type(self).__name__}.lr cannot be deleted.")

    @property
    def learning_rate(self) -> float:
        """The learning rate as it stands, before multipliers."""
        schedule = self.lr_scheduler
        if schedule is not None:
            lr = schedule(self.num_update)
            return lr if type(lr) is float and 0.0 <= lr < math.inf else self._as_rate(lr)
        if self._rate is None:
            raise ValueError(
                f"{type(self._definition).__name__}.learning_rate: lr must be set where there is "
                "no lr_scheduler, got None. What comes from optax has a learning rate itself; one "
                "given to from_optax can be read and set."
            )
        return self._rate

    def _as_rate(self, lr: Any) -> float:
        where = f"{type(self).__name__}.learning_rate: lr_scheduler must give a number"
        try:
            rate = float(lr)
        except (TypeError, ValueError):
            raise TypeError(f"{where}, got {lr!r}.") from None
        if isinstance(lr, str):
            raise TypeError(f"{where}, got {lr!r}.")
        if not 0.0 <= rate < math.inf:
            raise ValueError(f"{where} in [0, inf), got {rate!r} for update {self.num_update}.")
        return rate

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate.

        Raises:
            UserWarning: there is a scheduler, which decides.
            TypeError: it is None.
        """
        if self.lr_scheduler is not None:
            raise UserWarning(
                f"{type(self).__name__}.set_learning_rate: lr_scheduler must be None, got "
                f"{self.lr_scheduler!r}, which decides the learning rate."
            )
        given: Any = lr
        if given is None:
            raise TypeError(
                f"{type(self).__name__}.set_learning_rate: lr must be a number, got None."
            )
        self.lr = lr

    def set_lr_scale(self, args_lrscale: Any) -> None:
        """Raise DeprecationWarning: `set_lr_mult` takes its place.

        Raises:
            DeprecationWarning: always.
        """
        del args_lrscale
        raise DeprecationWarning(f"{type(self).__name__}.set_lr_scale: use set_lr_mult.")

    # Multipliers.

    @property
    def lr_mult(self) -> Any:
        """Factors of the learning rate by index, name or pattern."""
        return self._lr_mult if self._is_algorithm else self._read("lr_mult", None) or Multipliers()

    @lr_mult.setter
    def lr_mult(self, table: Any) -> None:
        self._set_table("lr_mult", table)

    @property
    def wd_mult(self) -> Any:
        """Factors of the weight decay by index, name or pattern."""
        return self._wd_mult if self._is_algorithm else self._read("wd_mult", None) or Multipliers()

    @wd_mult.setter
    def wd_mult(self, table: Any) -> None:
        self._set_table("wd_mult", table)

    def _check_multipliers(self, what: str, table: Any) -> None:
        """Raise unless multipliers are known, and something takes them."""
        where = f"{type(self).__name__}.{what}"
        if table and not any("lr_mult" in vars(part) for part in self._parts):
            raise TypeError(
                f"{where} must be left out: {type(self._definition).__name__} has no multipliers; "
                "optax.masked is for some of the weights."
            )
        for key in table or () if what != "param_dict" else ():
            if isinstance(table[key], Tracer):
                raise TypeError(
                    f"{where}[{key!r}] must be a known number, got a tracer. Multipliers live on "
                    "the host: use `definition` inside of jax.jit."
                )

    def _set_table(self, which: str, table: Any) -> None:
        self._check_multipliers(which, table)
        if self._is_algorithm:
            vars(self)[f"_{which}"] = table
        else:
            self._hold(self._definition.replace(**{which: table}))
        tables = self.lr_mult or (), self.wd_mult or ()
        vars(self)["_unnamed"] = any(isinstance(key, str) for one in tables for key in one)

    def set_lr_mult(self, args_lr_mult: Mapping[Any, float]) -> None:
        """Set the factors of the learning rate, in place of all earlier ones.

        Args:
            args_lr_mult: factors by index, by name (of `param_idx2name`) or by pattern such as
                `"*_bias"`. A symbol's `__lr_mult__` hold where nothing is said here.

        Warns:
            UserWarning: a name or pattern is of none of `param_idx2name`, or a 0 has no effect.
        """
        given = self._checked("lr_mult", args_lr_mult)
        if not getattr(self._definition, "_has_rate", True):
            warn_of_zeros(f"{type(self).__name__}.set_lr_mult", given)
        self.lr_mult = {**self._of_symbol("__lr_mult__"), **given}

    def set_wd_mult(self, args_wd_mult: Mapping[Any, float]) -> None:
        """Set the factors of the weight decay, in place of all earlier ones.

        Where `param_idx2name` names weights, those whose names end neither in `_weight` nor in
        `_gamma` get 0 unless something else is said here or by the symbol.

        Args:
            args_wd_mult: factors by index, name or pattern.

        Warns:
            UserWarning: a name or pattern is of none of `param_idx2name`.
        """
        given = self._checked("wd_mult", args_wd_mult)
        decaying = updates.decaying(self._definition)
        without = {
            name: 0.0
            for index, name in self.idx2name.items()
            if not name.endswith(decaying) and find(given, index, name) is None
        }
        self.wd_mult = {**without, **self._of_symbol("__wd_mult__"), **given}

    def _checked(self, which: str, given: Mapping[Any, Any]) -> Multipliers:
        """Return a table of multipliers, with a warning of names that nothing has."""
        call = f"{type(self).__name__}.set_{which}"
        checked = Multipliers.checked(call, which, given)
        before = getattr(self, which)
        # The first table is of the constructor, or of the symbol; an index may be a string.
        if before is None or any(isinstance(index, str) for index in self.idx2name):
            return checked
        names = list(self.idx2name.values())
        known = {*names, *(self.sym_info[1] if self.sym_info else ()), *before}
        asked = [key for key in checked if isinstance(key, str) and key not in known]
        for key in asked if names else ():
            if not any(matches(key, name) for name in names):
                hint = nearest(key, names) or "."
                warn_caller(f"{call}: {key!r} is no name of param_idx2name{hint}")
        return checked

    def _of_symbol(self, attribute: str) -> dict[str, float]:
        """Return what the symbol says of its arguments."""
        if not self.sym_info:
            return {}
        attributes, arguments = self.sym_info
        return {
            name: float(attributes[name][attribute])
            for name in arguments
            if attribute in attributes.get(name, {})
        }

    def _of_parameter(self, index: Hashable, which: str) -> Any:
        """Return what `param_dict` says of a weight."""
        parameter = self.param_dict[index]
        if not hasattr(parameter, which):
            raise TypeError(
                f"{type(self).__name__}: param_dict[{index!r}] must have lr_mult and wd_mult, got "
                f"{parameter!r}."
            )
        return getattr(parameter, which)

    def _factor(self, which: str, table: Mapping[Any, Any], index: Hashable) -> Any:
        if index in self.param_dict:
            return self._of_parameter(index, which)
        if not table:
            return 1.0
        factor = find(table, index, self.idx2name.get(index))
        return 1.0 if factor is None else factor

    def _look_for_names(self, indices: Sequence[Any]) -> None:
        """Warn, once a table, of multipliers by name where weights have none."""
        if not self.idx2name and not any(isinstance(index, str) for index in indices):
            tables = ("lr_mult", "wd_mult")
            keys = [(w, key) for w in tables for key in getattr(self, w) if isinstance(key, str)]
            for which, key in keys[:1]:
                warn_caller(
                    f"{type(self).__name__}.{which}[{key!r}] is of no weight: index "
                    f"{indices[0]!r} has no name, which param_idx2name would give."
                )
        vars(self)["_unnamed"] = False

    def _without_weight(self, shapes: Mapping[str, Sequence[int]]) -> list[str]:
        """Return messages about multipliers and patterns that are of none of these weights."""
        if type(self._definition) is Undefined:
            return []
        return self.definition._unmatched(shapes)

    def _name(self, index: Hashable) -> str:
        return self.idx2name.get(index) or str(index)

    # Counts and rates, which a subclass may override, or ask for in its own update.

    @property
    def num_update(self) -> int:
        """The largest number of updates of any index; calls that accumulate are none."""
        begin, every = self.begin_num_update, updates.calls_an_update(self._definition)
        return self._largest if every == 1 else begin + (self._largest - begin) // every

    @num_update.setter
    def num_update(self, count: int) -> None:
        where = f"{type(self).__name__}.num_update"
        if not self._is_algorithm:
            raise AttributeError(
                f"{where} cannot be assigned around {type(self._definition).__name__}, whose "
                f"states count for themselves, got {count!r}; begin_num_update is where new "
                "states start."
            )
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)):
            raise TypeError(f"{where} must be an integer, got {count!r}.")
        self._count_from(int(count))

    def _count_from(self, count: int) -> None:
        """Set `num_update`."""
        begin, every = self.begin_num_update, updates.calls_an_update(self._definition)
        vars(self)["_largest"] = begin + (count - begin) * every

    def _set_current_context(self, device_id: int) -> None:
        """Choose the device whose counts the next updates raise; each has counts of its own."""
        # Past __setattr__, which looks for slips.
        vars(self)["_index_update_count"] = self._all_index_update_counts.setdefault(device_id, {})

    def _update_count(self, index: Any) -> None:
        """Raise the count of an index, or of each of a list, and `num_update` with it."""
        counts: dict[Any, int] = self._index_update_count
        begin: int = self.begin_num_update or 0
        for one in index if isinstance(index, (list, tuple)) else (index,):
            counts[one] = count = counts.get(one, begin) + 1
            if count > self._largest:
                vars(self)["_largest"] = count

    def _get_lrs(self, indices: Sequence[Hashable]) -> list[float]:
        """Return the learning rates of some indices, multipliers in them."""
        lr, table = self.learning_rate, self.lr_mult
        if not table and not self.param_dict:
            return [lr] * len(indices)
        return [lr * self._factor("lr_mult", table, index) for index in indices]

    def _get_lr(self, index: Hashable) -> float:
        return self._get_lrs((index,))[0]

    def _get_wds(self, indices: Sequence[Hashable]) -> list[float]:
        """Return the decays of some indices, multipliers in them."""
        wd, table = self.wd, self.wd_mult
        if not table and not self.param_dict:
            return [wd] * len(indices)
        return [wd * self._factor("wd_mult", table, index) for index in indices]

    def _get_wd(self, index: Hashable) -> float:
        return self._get_wds((index,))[0]

    # States and updates.

    def create_state(self, index: Hashable, weight: Any) -> Any:
        """Make the state of one weight: the algorithm's slots, by name and in MXNet's order.

        `mean, var = state` for Adam, `()` where nothing is kept. Around a wrapper, a `State`. A
        subclass with its own `update` may return anything; None by default.
        """
        return updates.first_state(self._definition, index, weight)

    def create_state_multi_precision(self, index: Hashable, weight: Any) -> Any:
        """Make the state of one weight, with a float32 master where `multi_precision` wants one.

        Returns:
            What `create_state` gives for the weight; or a `MasterState`, `(master, slots)`, with
            what it gives for the master. Around a wrapper, a `State`.
        """
        if not self._is_algorithm:
            return self._definition.create_state_multi_precision(index, weight)
        full, master = updates.full_weight(self._definition, index, weight)
        state = self.create_state(index, full)
        if not self._own_update:
            state = updates.named_state(self, "create_state", index, full, state)
        return state if master is None else MasterState(master, state)

    @property
    def _own_update(self) -> bool:
        """True if the class brings its own `update`, as in MXNet."""
        return self._brings("update", "update_multi_precision")

    def _brings(self, *names: str) -> bool:
        """True if the class, or the object, has one of these itself in place of ours."""
        kind, own = type(self), vars(self)
        return any(
            name in own or getattr(kind, name) is not getattr(Optimizer, name) for name in names
        )

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        """Update one weight, or all of a list in one compiled call.

        Args:
            index: any hashable, or a list of them.
            weight: a floating array, or a list of them.
            grad: an array or `RowSparse` of the shape of the weight, or a list.
            state: what `create_state` or `create_state_multi_precision` gave, or a list. One in
                MXNet's form, without names, is taken too.

        Returns:
            The new weight and state, or two lists. Arrays do not change in place.

        Raises:
            ValueError: shapes do not fit. Nothing has changed then, nor with a TypeError.
            TypeError: an argument is not of the kind needed, or `update` is being traced.
            NotImplementedError: there is no definition, and the subclass has no update.
        """
        prepared = self._prepared or updates.prepared(self)
        if self._unnamed:
            self._look_for_names(index if isinstance(index, (list, tuple)) else [index])
        if not isinstance(index, (list, tuple)):
            return prepared.one(self, index, weight, grad, state)
        call = f"{type(self).__name__}.update"
        updates.check_lists(call, len(index), weight=weight, grad=grad, state=state)
        updates.check_indices(self, index)
        return prepared.several(self, list(index), weight, grad, state)

    def update_multi_precision(
        self, index: Any, weight: Any, grad: Any, state: Any
    ) -> tuple[Any, Any]:
        """Update like `update`, which follows the state it is given.

        For a subclass with its own `update` it unpacks a state with a master, lets `update` work
        on the master, and rounds.
        """
        if isinstance(index, (list, tuple)) or not self._own_update or not self._is_algorithm:
            return self.update(index, weight, grad, state)
        if not (self.multi_precision and weight.dtype in HALF):
            return self.update(index, weight, grad, state)
        master, inner = state
        updated = self.update(index, master, grad.astype(master.dtype), inner)
        master, inner = updates.accepted(self, index, master, inner, updated)
        return master.astype(weight.dtype), MasterState(master, inner)

    # Copies.

    def __getstate__(self) -> dict[str, Any]:
        kept = {**vars(self), "param_dict": {}}
        return {name: kept[name] for name in kept if name not in ("_prepared", "_parts")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        write = vars(self)
        write.clear()
        write.update(state, param_dict={})
        if "_definition" in write:
            self._hold(write["_definition"])

    def __reduce__(self) -> tuple[Any, ...]:
        made_of = vars(type(self)).get("_made_of", (type(self), None))
        return _blank, made_of, self.__getstate__()

    def __repr__(self) -> str:
        counted = f"num_update={self.num_update}"
        if type(self._definition) is Undefined:
            shown = f"learning_rate={self.lr!r}"
            if self.lr_scheduler is not None:
                shown = f"lr_scheduler={self.lr_scheduler!r}"
        elif "_made_of" in vars(type(self)):
            shown = repr(self.definition)
        else:
            shown = repr(self.definition).partition("(")[2][:-1]
        return f"{type(self).__name__}({', '.join(filter(None, (shown, counted)))})"

    # The registry.

    @staticmethod
    def register(klass: Class) -> Class:
        """Make a class known to `create` under its name in lower case; a class decorator.

        Args:
            klass: a subclass of Optimizer, or of OptimizerDef.

        Raises:
            TypeError: it is neither.
        """
        given: Any = klass
        if not isinstance(given, type) or not issubclass(given, (Optimizer, OptimizerDef)):
            raise TypeError(
                "Optimizer.register: klass must be a subclass of Optimizer or of OptimizerDef, "
                f"got {klass!r}."
            )
        name, registry = klass.__name__.lower(), Optimizer.opt_registry
        if name in registry:
            old = registry[name]
            warnings.warn(
                f"Optimizer.register: {klass.__module__}.{klass.__name__} overrides "
                f"{old.__module__}.{old.__name__}.",
                UserWarning,
                stacklevel=2,
            )
        registry[name] = klass
        return klass

    @staticmethod
    def create_optimizer(name: "str | Definition | Optimizer", **kwargs: Any) -> "Optimizer":
        """Make an optimizer by its registered name, in upper or lower case.

        Args:
            name: the name; or a definition, which is wrapped; or an Optimizer, which is returned.
            **kwargs: arguments of the class, or what overrides the definition.

        Raises:
            ValueError: no class has this name.
            TypeError: an argument is unknown, or arguments came with an Optimizer.
        """
        if isinstance(name, Optimizer):
            if kwargs:
                raise TypeError(
                    f"create: arguments must come with a name or a definition, got {kwargs!r} "
                    f"with {name!r}."
                )
            return name
        beside = {key: kwargs[key] for key in _BESIDE if key in kwargs}
        fields = {key: value for key, value in kwargs.items() if key not in beside}
        if isinstance(name, Definition):
            return Optimizer(name.replace(**fields) if fields else name, **beside)
        registry = Optimizer.opt_registry
        if not isinstance(name, str):
            raise TypeError(
                f"create: name must be a string, an Optimizer or a definition, got {instead(name)}."
            )
        if name.lower() not in registry:
            raise ValueError(
                f"create: name must be a registered optimizer, got {name!r}"
                f"{nearest(name.lower(), registry) or '.'}"
            )
        klass = registry[name.lower()]
        if issubclass(klass, Optimizer):
            return klass(**kwargs)
        return Optimizer(klass(**fields), **beside)


def _blank(cls: Any, kinds: Any) -> Any:
    """Return an object without attributes, to be filled by `__setstate__`."""
    return object.__new__(cls if kinds is None else around(cls, kinds))


def _symbol_info(owner: str, sym: Any) -> tuple[Any, ...]:
    """Return what a symbol says of its arguments, `()` without one."""
    if sym is None:
        return ()
    if not hasattr(sym, "attr_dict") or not hasattr(sym, "list_arguments"):
        raise TypeError(f"{owner}: sym must have attr_dict() and list_arguments(), got {sym!r}.")
    return sym.attr_dict(), sym.list_arguments()


def _overridden(owner: str, definition: Any, given: dict[str, Any]) -> Any:
    """Return a definition with what was given to a constructor in place of what it says."""
    asked, rate = given.get("learning_rate"), None
    scheduler = given.get("lr_scheduler")
    if isinstance(definition, OptimizerDef):
        scheduler = definition.lr_scheduler if scheduler is None else scheduler
        if scheduler is not None and not isinstance(asked, Unasked | None):
            given = {name: value for name, value in given.items() if name != "learning_rate"}
            rate = float(as_number(owner, "learning_rate", asked, NonNegative))
    definition = definition.replace(**given) if given else definition
    if rate is None:
        return definition
    # Now that nothing else is refused. What a definition holds is not written to.
    scheduler = scheduler if "lr_scheduler" in given else copy.copy(scheduler)
    return definition.replace(lr_scheduler=overridden(owner, scheduler, rate, write=True))
