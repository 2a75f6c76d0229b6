"""What a stateful optimizer lets one read and write: a definition taken apart into attributes."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.core import Tracer

from jaxmxopt._core import config as _config
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.overriding import check_scheduler, warn_caller
from jaxmxopt._stateful.counts import RATES, HostRates
from jaxmxopt._stateful.plan import Counted, Plan

__all__ = ["Hyperparameters", "Undefined", "warn_of_a_slip"]


class Undefined(OptimizerDef):
    """The definition of an optimizer that brings its own update: it has none."""


# Messages about its fields are about the stateful class.
Undefined.__name__ = "Optimizer"

# What every optimizer has as plain attributes, and which field of a definition each is.
_COMMON = {
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler",
    "wd": "wd",
    "rescale_grad": "rescale_grad",
    "clip_gradient": "clip_gradient",
    "begin_num_update": "begin_num_update",
    "multi_precision": "multi_precision",
}


@functools.cache
def _own(algorithm: type[OptimizerDef]) -> frozenset[str]:
    """The fields that an algorithm adds; `lazy_update` is one of them."""
    if algorithm is Undefined:
        return frozenset()
    common = {*_COMMON.values(), "lr_mult", "wd_mult", "param_idx2name"}
    return frozenset(algorithm._described).difference(common)


class _NotMade:
    """Stands for an attribute that `__init__` gives, where it has not been called."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        raise AttributeError(
            f"{owner.__name__!r} object has no attribute {self._name!r}: super().__init__() must "
            "be called first."
        )


class Hyperparameters(HostRates):
    """Hyperparameters as attributes: checked when written, and then valid at the next update.

    They are in the instance's dictionary, as nothing else is as fast to read; what is written
    goes through the definition, which refuses what it would refuse.

    Attributes:
        rescale_grad: every gradient is multiplied by it first.
        clip_gradient: limits the elements of the gradient; None, 0 and below mean no limit.
        multi_precision: float32 masters for weights of fewer than 32 bits.
    """

    rescale_grad: float
    clip_gradient: float | None
    multi_precision: bool
    # Holds the algorithm's own numbers, which are attributes too.
    _algorithm: OptimizerDef = cast(OptimizerDef, _NotMade())
    _plan: Plan | None
    aggregate_num: int = cast(int, _NotMade())

    def _adopt(self, definition: OptimizerDef) -> None:
        """Takes over what a definition says."""
        arrays = {
            name: _one_number(type(definition).__name__, name, value)
            for name in definition._leaf_names
            if isinstance(value := getattr(definition, name), (jax.Array, np.ndarray))
        }
        definition = definition.replace(**arrays) if arrays else definition
        self.__dict__.update((name, getattr(definition, of)) for name, of in _COMMON.items())
        self._hold(definition)

    def _hold(self, algorithm: OptimizerDef) -> None:
        """Keeps an algorithm, its own numbers as attributes."""
        self.__dict__.update((name, getattr(algorithm, name)) for name in _own(type(algorithm)))
        self.__dict__.update(_algorithm=algorithm, _plan=None)

    @property
    def _decaying(self) -> tuple[str, ...]:
        return self._algorithm._decaying

    @property
    def definition(self) -> OptimizerDef:
        """The immutable definition that does the same, as things stand now.

        Raises:
            TypeError: the optimizer brings its own `update`.
        """
        if type(self._algorithm) is Undefined:
            raise TypeError(
                f"{type(self).__name__}.definition: an optimizer with an update of its own has "
                "no definition."
            )
        lr_mult, wd_mult = dict(self.lr_mult), dict(self.wd_mult)
        for name in self.idx2name.values():
            # What param_idx2name says by itself.
            if not name.endswith(self._decaying) and wd_mult.get(name) == 0.0:
                del wd_mult[name]
        for index in self.param_dict:
            lr_mult[index] = self._of_parameter(index, "lr_mult")
            wd_mult[index] = self._of_parameter(index, "wd_mult")
        return self._algorithm.replace(
            learning_rate=self.lr if self.lr_scheduler is None else None,
            lr_scheduler=self.lr_scheduler,
            wd=self.wd,
            rescale_grad=self.rescale_grad,
            clip_gradient=self.clip_gradient,
            begin_num_update=self.begin_num_update,
            multi_precision=self.multi_precision,
            param_idx2name=self.idx2name or None,
            lr_mult=lr_mult or None,
            wd_mult=wd_mult or None,
        )

    def _without_weight(self, names: Sequence[str]) -> list[str]:
        """What is said of weights that are not among these, as messages."""
        if type(self._algorithm) is Undefined:
            return []
        return self.definition._without_weight(names)

    def __setattr__(self, name: str, value: Any) -> None:
        algorithm = self.__dict__.get("_algorithm")
        if algorithm is not None and name in _own(type(algorithm)):
            self._hold(algorithm.replace(**{name: _plain(name, value)}))
        elif algorithm is not None and name in _COMMON:
            self._set_common(algorithm, name, _plain(name, value))
        elif name == "learning_rate" and type(self).learning_rate is HostRates.learning_rate:
            raise AttributeError(
                f"{type(self).__name__}.learning_rate cannot be assigned: set_learning_rate(lr) "
                "does it."
            )
        else:
            if algorithm is not None and name not in self.__dict__:
                warn_of_a_slip(self, name, [*_own(type(algorithm)), *_COMMON])
            object.__setattr__(self, name, value)
            if name in RATES:
                self.__dict__["_own_rates"] = True

    def __delattr__(self, name: str) -> None:
        algorithm = self.__dict__.get("_algorithm")
        if algorithm is not None and (name in _COMMON or name in _own(type(algorithm))):
            raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted.")
        object.__delattr__(self, name)

    def _set_common(self, algorithm: OptimizerDef, name: str, value: Any) -> None:
        """Sets what every optimizer has, refusing what a definition would refuse."""
        write, owner = self.__dict__, type(self).__name__
        if name == "lr_scheduler":
            check_scheduler(owner, value)
        elif name in ("lr", "rescale_grad"):
            value = _config._number(owner, name, value, algorithm._described[_COMMON[name]])
        else:
            write["_algorithm"] = algorithm.replace(**{name: value})
            value = getattr(write["_algorithm"], name)
        if name not in ("lr", "lr_scheduler") and value != write[name]:
            write["_plan"] = None
        write[name] = value

    def _planned(self, counted: Counted) -> Plan:
        """The compiled functions and numbers for the attributes as they stand."""
        plan = self._plan
        if plan is None:
            clip = self.clip_gradient
            algorithm = self._algorithm._with(
                rescale_grad=self.rescale_grad,
                clip_gradient=clip if clip is not None and clip > 0 else None,
            )
            self.__dict__["_plan"] = plan = Plan(algorithm, counted)
        return plan

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None, "param_dict": {}}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.clear()
        self.__dict__.update(state)
        self.__dict__.update(param_dict={}, _plan=None)
        if "_algorithm" in state:
            self._hold(state["_algorithm"])

    def __repr__(self) -> str:
        if type(self._algorithm) is Undefined:
            shown = f"learning_rate={self.lr!r}"
            if self.lr_scheduler is not None:
                shown = f"lr_scheduler={self.lr_scheduler!r}"
        else:
            shown = repr(self.definition).partition("(")[2][:-1]
        counted = f"num_update={self.num_update}"
        return f"{type(self).__name__}({', '.join(filter(None, (shown, counted)))})"


def warn_of_a_slip(optimizer: Any, name: str, known: Sequence[str]) -> None:
    """Warns of a new attribute that is called almost as a hyperparameter and would do nothing."""
    kind = type(optimizer)
    # Classes of users have attributes of their own.
    if hasattr(kind, name) or not kind.__module__.startswith("jaxmxopt."):
        return
    if hint := _config.nearest(name, known, at_least=0.8):
        warn_caller(f"{kind.__name__}.{name} is no hyperparameter{hint}")


def _plain(name: str, value: Any) -> Any:
    is_array = isinstance(value, (jax.Array, np.ndarray))
    return _one_number("Optimizer", name, value) if is_array else value


def _one_number(owner: str, name: str, value: Any) -> float:
    """The number in an array of one element: hyperparameters live on the host."""
    if isinstance(value, Tracer) or value.size != 1:
        raise TypeError(f"{owner}: {name} must be a single known number, got {value}.")
    return float(value.reshape(()))
