"""How the classes of `jaxmxopt.optimizer` get their constructors from their signatures."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

import jaxmxopt
from jaxmxopt._config import nearest
from jaxmxopt._optimizer import Optimizer

__all__ = ["Common", "RestAndPrecision", "RestAndRate", "stateful"]

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


class RestAndPrecision(Rest, total=False):
    """The same, and whether there are masters."""

    multi_precision: bool


class Common(RestAndPrecision, total=False):
    """All arguments of `Optimizer`."""

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
    signature = inspect.Signature([*given, *common])

    @functools.wraps(stub)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        for name in kwargs:
            if name not in signature.parameters:
                raise TypeError(
                    f"{type(self).__name__}() got an unknown argument {name!r}"
                    f"{nearest(name, signature.parameters) or '.'}"
                )
        bound = signature.bind(self, *args, **kwargs)
        arguments = {p.name: p.default for p in given[1:]} | bound.arguments
        del arguments["self"]
        own = {name: arguments.pop(name) for name in list(arguments) if name not in known}
        Optimizer.__init__(self, getattr(jaxmxopt, cls.__name__)(**own), **arguments)

    __init__.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    cls.__init__ = __init__
    return Optimizer.register(cls)
