"""How the classes of `jaxmxopt.optimizer` get their constructors from their signatures."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

from jaxmxopt._algorithms import ALGORITHMS
from jaxmxopt._core.config import nearest
from jaxmxopt._stateful.optimizer import Optimizer

__all__ = [
    "Common",
    "CommonBesideLazy",
    "RestAndPrecision",
    "RestAndRate",
    "RestBesideLazy",
    "stateful",
]

Class = TypeVar("Class", bound=type[Optimizer])


class Rest(TypedDict, total=False):
    """Arguments of `Optimizer` that no class lists itself."""

    rescale_grad: float
    param_idx2name: Mapping[Any, str] | None
    wd: float
    clip_gradient: float | None
    lr_scheduler: Callable[[Any], Any] | None
    sym: Any
    begin_num_update: int
    param_dict: Mapping[Any, Any] | None


class RestAndRate(Rest, total=False):
    """The same, and the learning rate."""

    learning_rate: float | None
    lazy_update: bool


class RestBesideLazy(Rest, total=False):
    """What a class lists that takes `lazy_update` and the rate itself, as in MXNet."""

    multi_precision: bool


class CommonBesideLazy(RestBesideLazy, total=False):
    """The same, and the learning rate."""

    learning_rate: float | None


class RestAndPrecision(RestBesideLazy, total=False):
    """The rest, and whether there are masters and row-sparse gradients touch rows alone."""

    lazy_update: bool


class Common(RestAndPrecision, total=False):
    """All arguments that every class has."""

    learning_rate: float | None


def stateful(cls: Class) -> Class:
    """Makes a class whose `__init__` is only a signature the stateful form of a definition.

    The definition is the one of its name at the top of the package. The arguments that are fields
    of its own make the definition, the others go to `Optimizer`. Registers the class.
    """
    stub = cls.__init__
    given = [p for p in inspect.signature(stub).parameters.values() if p.kind != p.VAR_KEYWORD]
    names = {parameter.name for parameter in given}
    common = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(Optimizer.__init__).parameters.values()
        if parameter.kind != parameter.POSITIONAL_ONLY and parameter.name not in names
    ]
    known = inspect.signature(Optimizer.__init__).parameters
    lazily = inspect.Parameter(
        "lazy_update",
        inspect.Parameter.KEYWORD_ONLY,
        default=ALGORITHMS[cls.__name__].lazy_update,
    )
    # MXNet has it only where it is a positional argument; here all can be lazy, or not.
    also = [] if "lazy_update" in names else [lazily]
    signature = inspect.Signature([*given, *common, *also])

    @functools.wraps(stub)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        for name in kwargs:
            if name in ("lr_mult", "wd_mult"):
                raise TypeError(
                    f"{type(self).__name__}() got an unknown argument {name!r}; set_{name} sets "
                    f"it, and so does a definition, jaxmxopt.{cls.__name__}({name}=...)."
                )
            if name not in signature.parameters:
                raise TypeError(
                    f"{type(self).__name__}() got an unknown argument {name!r}"
                    f"{nearest(name, signature.parameters) or '.'}"
                )
        bound = signature.bind(self, *args, **kwargs)
        arguments = {p.name: p.default for p in given[1:]} | bound.arguments
        del arguments["self"]
        own = {name: arguments.pop(name) for name in list(arguments) if name not in known}
        Optimizer.__init__(self, ALGORITHMS[cls.__name__](**own), **arguments)

    __init__.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    cls.__init__ = __init__
    return Optimizer.register(cls)
