"""What MXNet's optimizers keep on the host: counts, multipliers and the schedule.

All in Python numbers, in double precision, looked up anew at every update, so whatever a training
loop changes between two updates counts from the next one on.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from jaxmxopt._core.config import nearest
from jaxmxopt._core.multipliers import Multipliers, find, matches
from jaxmxopt._core.overriding import warn_caller

__all__ = ["RATES", "HostRates", "symbol_info"]

# What MXNet's optimizers ask for counts and rates, which a class or an instance may replace.
RATES = ("_get_lr", "_get_lrs", "_get_wd", "_get_wds", "_update_count")


def symbol_info(owner: str, sym: Any) -> tuple[Any, ...]:
    """What a symbol says of its arguments, `()` without one."""
    if sym is None:
        return ()
    if not hasattr(sym, "attr_dict") or not hasattr(sym, "list_arguments"):
        raise TypeError(f"{owner}: sym must have attr_dict() and list_arguments(), got {sym!r}.")
    return sym.attr_dict(), sym.list_arguments()


class HostRates:
    """Learning rate, decay and count of every index: MXNet's bookkeeping.

    Attributes:
        lr: the learning rate where there is no scheduler.
        lr_scheduler: a callable from an update count to a learning rate, or None.
        wd: weight decay before its multipliers.
        lr_mult: factors of the learning rate by index, name or pattern.
        wd_mult: factors of the decay, likewise.
        idx2name: names of indices.
        param_dict: anything with `lr_mult` and `wd_mult`, by index; goes before the tables.
        sym_info: `(attr_dict(), list_arguments())` of the symbol given, or `()`.
        begin_num_update: the count that indices start from.
        num_update: the largest count of any index on any device.
    """

    lr: float | None
    lr_scheduler: Callable[[Any], Any] | None
    wd: float
    lr_mult: dict[Any, Any]
    wd_mult: dict[Any, Any]
    idx2name: dict[Any, str]
    param_dict: Mapping[Any, Any]
    sym_info: tuple[Any, ...]
    begin_num_update: int
    num_update: int
    _all_index_update_counts: dict[Any, dict[Any, int]]
    _index_update_count: dict[Any, int]
    # Whether one of `RATES` has been replaced.
    _own_rates: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._look_for_own()

    @classmethod
    def _look_for_own(cls) -> None:
        """Notes what a class brings itself; again when one is made, as decorators come later."""
        cls._own_rates = any(getattr(cls, name) is not getattr(HostRates, name) for name in RATES)

    # Multipliers.

    def set_lr_mult(self, args_lr_mult: Mapping[Any, float]) -> None:
        """Sets the factors of the learning rate, in place of all earlier ones.

        Args:
            args_lr_mult: factors by index, by name (of `param_idx2name`) or by pattern such as
                `"*_bias"`. A symbol's `__lr_mult__` hold where nothing is said here.

        Warns:
            UserWarning: a name or pattern is of none of `param_idx2name`.
        """
        given = self._checked("lr_mult", args_lr_mult)
        self.lr_mult = {**self._of_symbol("__lr_mult__"), **given}

    def set_wd_mult(self, args_wd_mult: Mapping[Any, float]) -> None:
        """Sets the factors of the weight decay, in place of all earlier ones.

        Where `param_idx2name` names weights, those whose names end neither in `_weight` nor in
        `_gamma` get 0 unless something else is said here or by the symbol.

        Args:
            args_wd_mult: factors by index, name or pattern.

        Warns:
            UserWarning: a name or pattern is of none of `param_idx2name`.
        """
        given = self._checked("wd_mult", args_wd_mult)
        without = {
            name: 0.0
            for index, name in self.idx2name.items()
            if not name.endswith(self._decaying) and find(given, index, name) is None
        }
        self.wd_mult = {**without, **self._of_symbol("__wd_mult__"), **given}

    def _checked(self, which: str, given: Mapping[Any, Any]) -> Multipliers:
        """A table of multipliers, if it is one; with a warning of names that nothing has."""
        call = f"{type(self).__name__}.set_{which}"
        checked = Multipliers.checked(call, which, given)
        # The first table is of the constructor, or of the symbol; an index may be a string.
        if which not in self.__dict__ or any(isinstance(index, str) for index in self.idx2name):
            return checked
        names = list(self.idx2name.values())
        known = {*names, *(self.sym_info[1] if self.sym_info else ()), *self.__dict__[which]}
        asked = [key for key in checked if isinstance(key, str) and key not in known]
        for key in asked if names else ():
            if not any(matches(key, name) for name in names):
                hint = nearest(key, names) or "."
                warn_caller(f"{call}: {key!r} is no name of param_idx2name{hint}")
        return checked

    @property
    def _decaying(self) -> tuple[str, ...]:
        """Endings of the names that decay by default where `idx2name` gives names."""
        raise NotImplementedError

    def _of_symbol(self, attribute: str) -> dict[str, float]:
        """What a symbol says of its arguments."""
        if not self.sym_info:
            return {}
        attributes, arguments = self.sym_info
        return {
            name: float(attributes[name][attribute])
            for name in arguments
            if attribute in attributes.get(name, {})
        }

    def _of_parameter(self, index: Hashable, which: str) -> Any:
        """What `param_dict` says of a weight."""
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

    # Counts.

    def _set_current_context(self, device_id: int) -> None:
        """Chooses the device whose counts the next updates raise; each has counts of its own."""
        # Past __setattr__, which looks for hyperparameters.
        counts = self._all_index_update_counts.setdefault(device_id, {})
        self.__dict__["_index_update_count"] = counts

    def _update_count(self, index: Any) -> None:
        """Raises the count of an index, or of each of a list, and `num_update` with it."""
        counts, begin = self._index_update_count, self.begin_num_update
        for one in index if isinstance(index, (list, tuple)) else (index,):
            counts[one] = count = counts.get(one, begin) + 1
            if count > self.num_update:
                # Past __setattr__, which looks for hyperparameters.
                self.__dict__["num_update"] = count

    # Rates.

    @property
    def learning_rate(self) -> float:
        """The learning rate as it stands, before multipliers."""
        if self.lr_scheduler is None:
            if self.lr is None:
                raise ValueError(
                    f"{type(self).__name__}.learning_rate: lr must be set where there is no "
                    "lr_scheduler, got None."
                )
            return self.lr
        lr = self.lr_scheduler(self.num_update)
        return lr if type(lr) is float and 0.0 <= lr < math.inf else self._as_rate(lr)

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
        """Sets the learning rate.

        Raises:
            UserWarning: there is a scheduler, which decides.
        """
        if self.lr_scheduler is not None:
            raise UserWarning(
                f"{type(self).__name__}.set_learning_rate: lr_scheduler must be None, got "
                f"{self.lr_scheduler!r}, which decides the learning rate."
            )
        self.lr = lr

    def set_lr_scale(self, args_lrscale: Any) -> None:
        """Deprecated; `set_lr_mult` does it.

        Raises:
            DeprecationWarning: always.
        """
        del args_lrscale
        raise DeprecationWarning(f"{type(self).__name__}.set_lr_scale: use set_lr_mult.")

    def _get_lrs(self, indices: Sequence[Hashable]) -> list[float]:
        """The learning rates of some indices, multipliers in them."""
        lr = self.learning_rate
        if not self.lr_mult and not self.param_dict:
            return [lr] * len(indices)
        return [lr * self._factor("lr_mult", self.lr_mult, index) for index in indices]

    def _get_lr(self, index: Hashable) -> float:
        return self._get_lrs((index,))[0]

    def _get_wds(self, indices: Sequence[Hashable]) -> list[float]:
        """The decays of some indices, multipliers in them."""
        if not self.wd_mult and not self.param_dict:
            return [self.wd] * len(indices)
        return [self.wd * self._factor("wd_mult", self.wd_mult, index) for index in indices]

    def _get_wd(self, index: Hashable) -> float:
        return self._get_wds((index,))[0]

    def _lrs_and_wds(self, indices: Sequence[Hashable]) -> tuple[list[float], list[float]]:
        """The rates and decays of some indices; of a subclass that gives one, asked for each."""
        kind = type(self)
        one_lr = kind._get_lr is not HostRates._get_lr
        one_wd = kind._get_wd is not HostRates._get_wd
        lrs = [self._get_lr(index) for index in indices] if one_lr else self._get_lrs(indices)
        wds = [self._get_wd(index) for index in indices] if one_wd else self._get_wds(indices)
        return lrs, wds
