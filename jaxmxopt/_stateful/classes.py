"""The classes of mxnet.optimizer, made from a table.

Each is an `Optimizer` around the definition of its name, under MXNet's own signature. An editor and
a type checker read `jaxmxopt/optimizer.pyi`, which a test holds to this table.
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmxopt import _algorithms as algorithms
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import nearest
from jaxmxopt._stateful.hyperparameters import declared
from jaxmxopt._stateful.optimizer import Optimizer

__all__ = ["CLASSES", "DEFINITIONS", "TABLE"]


class _Row(NamedTuple):
    """A class of MXNet's.

    Attributes:
        definition: what it is around.
        positional: its arguments in MXNet's order, separated by spaces. All others go by name.
        state: of a weight.
        more: what the class has besides.
    """

    definition: type[OptimizerDef]
    positional: str
    state: str
    more: Mapping[str, Any] = MappingProxyType({})


def _counts_nothing(self: Any, index: Any) -> None:
    """Count nothing, as in MXNet."""
    del self, index


_MOMENTUM = "`(mom,)`, or `()` without momentum"
_ADAM = "learning_rate beta1 beta2 epsilon"

# Every default is that of the definition.
TABLE = (
    _Row(algorithms.SGD, "momentum lazy_update", _MOMENTUM),
    _Row(algorithms.ccSGD, "momentum lazy_update", _MOMENTUM),
    _Row(algorithms.NAG, "momentum", _MOMENTUM),
    _Row(algorithms.Signum, "learning_rate momentum wd_lh", _MOMENTUM),
    _Row(algorithms.SGLD, "", "`(key,)`"),
    _Row(
        algorithms.DCASGD,
        "momentum lamda",
        "`(mom, previous_weight)`, `mom` None without momentum",
    ),
    _Row(
        algorithms.LBSGD,
        "momentum multi_precision warmup_strategy warmup_epochs batch_scale updates_per_epoch "
        "begin_epoch num_epochs",
        "`(mom, cum_grad, num_cums)`, `mom` None without momentum",
    ),
    _Row(
        algorithms.LARS,
        "momentum lazy_update eta eps momentum_correction",
        "`(mom, last_lr)`, or `()` without momentum",
    ),
    _Row(algorithms.LAMB, f"{_ADAM} lower_bound upper_bound bias_correction", "`(mean, var)`"),
    _Row(algorithms.LANS, f"{_ADAM} lower_bound upper_bound", "`(mean, var)`"),
    _Row(algorithms.Adam, f"{_ADAM} lazy_update", "`(mean, var)`"),
    _Row(algorithms.AdamW, f"{_ADAM} correct_bias", "`(mean, var)`"),
    _Row(algorithms.BERTAdam, _ADAM, "`(mean, var)`"),
    _Row(algorithms.AdaBelief, f"{_ADAM} correct_bias", "`(mean, var)`"),
    _Row(algorithms.Adamax, "learning_rate beta1 beta2", "`(mean, inf_norm)`"),
    _Row(algorithms.Nadam, f"{_ADAM} schedule_decay", "`(mean, var, m_schedule)`"),
    _Row(algorithms.FTML, "beta1 beta2 epsilon", "`(d, v, z)`"),
    _Row(algorithms.AdaGrad, "eps", "`(history,)`"),
    _Row(algorithms.GroupAdaGrad, "eps", "`(history,)`, one number a row"),
    _Row(algorithms.AdaDelta, "rho epsilon", "`(acc_g, acc_delta)`"),
    _Row(
        algorithms.RMSProp,
        "learning_rate gamma1 gamma2 epsilon centered clip_weights",
        "`(n,)`, or `(n, g, delta)` where `centered`",
    ),
    _Row(algorithms.Ftrl, "lamda1 learning_rate beta", "`(z, n)`"),
    # Not a test, whatever its name begins with.
    _Row(
        algorithms.Test,
        "",
        "`(weight,)`. Counts nothing, as in MXNet",
        {"__test__": False, "_update_count": _counts_nothing},
    ),
)


def _signature(row: _Row) -> inspect.Signature:
    """Return the signature of a constructor: MXNet's arguments, then the others by name."""
    fields = {field.name: field for field in dataclasses.fields(row.definition)}
    common = inspect.signature(Optimizer.__init__).parameters
    positional = row.positional.split()
    own = [name for name in fields if name not in inspect.signature(OptimizerDef).parameters]
    others = [name for name in common if name not in ("self", "definition")]
    by_name = dict.fromkeys([*own, *others, "lazy_update"])
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=fields[name].default
        )
        for name in positional
    ]
    parameters += [
        common[name].replace(kind=inspect.Parameter.KEYWORD_ONLY)
        if name in common
        else inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=fields[name].default)
        for name in by_name
        if name not in positional
    ]
    return inspect.Signature(parameters)


def _made(row: _Row) -> type[Optimizer]:
    """Return the class of a row, registered."""
    name, known = row.definition.__name__, inspect.signature(Optimizer.__init__).parameters
    signature = _signature(row)
    defaults = {p.name: p.default for p in list(signature.parameters.values())[1:]}

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        for given in kwargs:
            if given in ("lr_mult", "wd_mult"):
                raise TypeError(
                    f"{type(self).__name__}() got an unknown argument {given!r}; set_{given} sets "
                    f"it, and so does a definition, jaxmxopt.{name}({given}=...)."
                )
            if given not in defaults:
                raise TypeError(
                    f"{type(self).__name__}() got an unknown argument {given!r}"
                    f"{nearest(given, defaults) or '.'}"
                )
        arguments = defaults | signature.bind(self, *args, **kwargs).arguments
        del arguments["self"]
        own = {field: arguments.pop(field) for field in list(arguments) if field not in known}
        Optimizer.__init__(self, row.definition(**own), **arguments)

    __init__.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    __init__.__qualname__ = f"{name}.__init__"
    about = {
        "__module__": "jaxmxopt.optimizer",
        "__doc__": f"Stateful `jaxmxopt.{name}`; state {row.state}.",
        "__init__": functools.wraps(Optimizer.__init__, ("__doc__",), ())(__init__),
    }
    made = type(name, (Optimizer,), about | declared((row.definition,)) | dict(row.more))
    return Optimizer.register(made)


CLASSES: dict[str, type[Optimizer]] = {row.definition.__name__: _made(row) for row in TABLE}
# MXNet's by name: what is not in the table is no class of MXNet's, and is known to `create` alone.
DEFINITIONS: Mapping[str, type[OptimizerDef]] = MappingProxyType(
    {row.definition.__name__: row.definition for row in TABLE}
)
for _name, _kind in algorithms.ALGORITHMS.items():
    if _name not in DEFINITIONS:
        Optimizer.register(_kind)
