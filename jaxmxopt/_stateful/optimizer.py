"""The stateful optimizer: mxnet.optimizer.Optimizer around a definition."""

import copy
import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import jax
import numpy as np

from jaxmxopt._core.config import NonNegative, as_number, nearest
from jaxmxopt._core.definition import OptimizerDef, Unasked
from jaxmxopt._core.overriding import check_scheduler, overridden
from jaxmxopt._core.pure import Definition, instead
from jaxmxopt._stateful.counts import symbol_info
from jaxmxopt._stateful.hyperparameters import Undefined
from jaxmxopt._stateful.updates import Updates

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


# What stands beside a definition: it has no field for some, and knows no scheduler to write to.
_BESIDE = ("sym", "param_dict", "learning_rate", "lr_scheduler")
_ONE, _NO_DECAY, _NO_UPDATES, _FALSE = Unasked(1.0), Unasked(0.0), _Default(0), _Default(False)


def _rescale_grad_first(init: Init) -> Init:
    """Lets a number stand first, as in MXNet, where a constructor takes a definition."""
    numbers = (int, float, np.number, np.ndarray, jax.Array)

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if args and isinstance(args[0], numbers) and not isinstance(args[0], bool):
            args = (None, *args)
        init(self, *args, **kwargs)

    wrapped: Any = __init__
    return wrapped


def _is_tree(definition: Any) -> bool:
    return isinstance(definition, Definition) and not isinstance(definition, OptimizerDef)


class Optimizer(Updates):
    """An optimizer with MXNet's interface: mutable, counting its updates itself.

    Wraps a definition, `Optimizer(jaxmxopt.Adam(beta1=0.8), learning_rate=3e-4)`: what is given
    beside it overrides what it says. The classes of `jaxmxopt.optimizer` do that under MXNet's
    own signatures. Or it is the base of a class that brings its own `update`, as in MXNet.

    Attributes may be set between two updates and count from the next one on, without compiling
    anything anew: `rescale_grad`, `lr`, `wd`, multipliers, the algorithm's own numbers
    (`momentum`). The counts live on the host: inside `jax.jit` use `definition`.

    Args:
        definition: the algorithm; None where a subclass has its own `update`. A number in its
            place is `rescale_grad`, MXNet's first argument, and the others follow it.
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
        aggregate_num: how many weights one call of `update` takes; 0 in a subclass whose own
            `update` takes one weight and no list.
    """

    opt_registry: ClassVar[dict[str, type[Any]]] = {}
    # The class for definitions that are no algorithm, which knows this one and sets it here.
    _of_trees: ClassVar[type[Any]]

    @_rescale_grad_first
    def __init__(
        self,
        definition: OptimizerDef | None = None,
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
        about_symbol = symbol_info(owner, sym)
        if type(self) is Optimizer and _is_tree(definition):
            # What stands for a whole tree keeps its states otherwise.
            self.__class__ = self._of_trees
            initialize: Any = self.__init__
            initialize(definition, sym=sym, param_dict=param_dict, **given)
            return
        if definition is None:
            definition = Undefined()
        elif not isinstance(definition, OptimizerDef):
            raise TypeError(f"{owner}: definition must be an OptimizerDef, got {definition!r}.")
        scheduler = definition.lr_scheduler if lr_scheduler is None else lr_scheduler
        asked_rate, rate = given.get("learning_rate"), None
        if scheduler is not None and not isinstance(asked_rate, Unasked | None):
            rate = float(as_number(owner, "learning_rate", given.pop("learning_rate"), NonNegative))
        algorithm = definition.replace(**given) if given else definition
        if rate is not None:
            # Now that nothing else is refused. What a definition holds is not written to.
            scheduler = copy.copy(scheduler) if lr_scheduler is None else scheduler
            scheduler = overridden(owner, scheduler, rate, write=True)
            algorithm = algorithm.replace(lr_scheduler=scheduler)
        self._look_for_own()
        self._adopt(algorithm)
        if self.lr_scheduler is not None and learning_rate is not None:
            self.lr = float(learning_rate)
        self.num_update = self.begin_num_update
        self._all_index_update_counts = {0: {}}
        self._set_current_context(0)
        self.idx2name = dict(algorithm.param_idx2name or {})
        self.sym_info = about_symbol
        self.param_dict = param_dict or {}
        self.aggregate_num = 0 if self._own_update else sys.maxsize
        self.set_lr_mult(algorithm.lr_mult or {})
        self.set_wd_mult(algorithm.wd_mult or {})

    def __repr__(self) -> str:
        if type(self) is not Optimizer or type(self._algorithm) is Undefined:
            return super().__repr__()
        return f"Optimizer({self.definition!r}, num_update={self.num_update})"

    # The registry.

    @staticmethod
    def register(klass: Class) -> Class:
        """Makes a class known to `create` under its name in lower case; a class decorator.

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
    def create_optimizer(name: "str | OptimizerDef | Optimizer", **kwargs: Any) -> "Optimizer":
        """Makes an optimizer by its registered name, in upper or lower case.

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
        if _is_tree(name):
            return Optimizer(name, **kwargs)  # pyright: ignore[reportArgumentType]
        if isinstance(name, OptimizerDef):
            rest = {key: kwargs.pop(key) for key in _BESIDE if key in kwargs}
            return Optimizer(name.replace(**kwargs) if kwargs else name, **rest)
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
        rest = {key: kwargs.pop(key) for key in _BESIDE if key in kwargs}
        return Optimizer(klass(**kwargs), **rest)
