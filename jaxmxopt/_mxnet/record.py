"""The optimizer inside a `.states` file, as data: a class's name and its known attributes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._mxnet.constructors import Pending, Record, Scope, shortened
from jaxmxopt._mxnet.ndarray import CSR

__all__ = ["MXNetRecord", "array_of", "record_of"]


class MXNetRecord(NamedTuple):
    """An optimizer or a scheduler that MXNet pickled: what it was, never made again.

    Attributes:
        module: where its class was defined, such as `"mxnet.optimizer.optimizer"`. A class of
            somebody's own has somebody's module, which is not imported.
        name: of its class, such as `"Adam"`.
        attributes: those known from MXNet, under its names: numbers, dicts and lists of them,
            text, arrays, and under `"lr_scheduler"` another `MXNetRecord` or None.
    """

    module: str
    name: str
    attributes: dict[str, Any]

    @property
    def version(self) -> int | None:
        """Returns the version of MXNet that wrote an optimizer, 1 or 2; None if nothing tells."""
        if "rescale_grad" not in self.attributes:
            return None
        return 2 if "use_fused_step" in self.attributes else 1


def array_of(made: Pending, scope: Scope) -> Any:
    """Take an array out of a file, with its bytes."""
    array = made.value
    parts = (array.indices, array.values) if isinstance(array, RowSparse) else (array,)
    parts = array[:3] if isinstance(array, CSR) else parts
    scope.spend(sum(part.nbytes for part in parts if part is not None))
    return array


_Kind = Callable[[Any, Scope], Any]


class _WrongKindError(ValueError):
    """A value that is not what an attribute holds; its text is what must stand there."""


def record_of(made: Record, scope: Scope) -> MXNetRecord:
    """Take the known attributes out of an instance.

    Raises:
        ValueError: one of them does not hold what MXNet keeps there.
    """
    attributes: dict[str, Any] = {}
    for name, value in (made.attributes or {}).items():
        take = _KINDS.get(name)
        if take is None:
            continue
        try:
            attributes[name] = take(value, scope)
        except _WrongKindError as error:
            raise ValueError(
                f"{name} of {made.of} must be {error}, got {shortened(_shown(value))}."
            ) from None
    return MXNetRecord(*made.of.key, attributes)


def _shown(value: Any) -> str:
    plain = (int, float, str, type(None))
    return repr(value) if isinstance(value, plain) else f"a {type(value).__name__}"


def _number(value: Any, scope: Scope) -> Any:
    # MXNet 2 leaves an array of one element in rescale_grad.
    if isinstance(value, Pending) and getattr(value.value, "size", 0) == 1:
        return value.value.item()
    if value is not None and not isinstance(value, (int, float)):
        raise _WrongKindError("a number")
    return value


def _text(value: Any, scope: Scope) -> str:
    if type(value) is not str:
        raise _WrongKindError("text")
    return value


def _list_of(kind: _Kind) -> _Kind:
    def take(value: Any, scope: Scope) -> Any:
        if type(value) not in (list, tuple):
            raise _WrongKindError("a list")
        scope.spend(len(value))
        return [kind(item, scope) for item in value]

    return take


def _dict_of(kind: _Kind) -> _Kind:
    def take(value: Any, scope: Scope) -> Any:
        if type(value) is not dict:
            raise _WrongKindError("a dict")
        scope.spend(len(value))
        return {key: kind(item, scope) for key, item in value.items()}

    return take


def _step(value: Any, scope: Scope) -> Any:
    kind = _number if isinstance(value, (int, float)) else _list_of(_number)
    return kind(value, scope)


def _symbols(value: Any, scope: Scope) -> Any:
    """Return the attributes and the names of a network's arguments, or nothing."""
    if type(value) is not tuple or len(value) not in (0, 2):
        raise _WrongKindError("nothing, or attributes and names")
    if not value:
        return ()
    return _dict_of(_dict_of(_text))(value[0], scope), _list_of(_text)(value[1], scope)


def _scheduler(value: Any, scope: Scope) -> Any:
    if value is None:
        return None
    # A scheduler has no other inside, so this does not go deep.
    if not isinstance(value, Record) or "base_lr" not in (value.attributes or {}):
        raise _WrongKindError("a scheduler or None")
    if "lr_scheduler" in (value.attributes or {}):
        raise _WrongKindError("a scheduler without another")
    return record_of(value, scope)


def _array(value: Any, scope: Scope) -> Any:
    if isinstance(value, Pending) and not isinstance(value.value, np.dtype):
        return array_of(value, scope)
    return _number(value, scope)


_NUMBERS = (
    # All optimizers.
    *("rescale_grad", "lr", "wd", "clip_gradient", "begin_num_update", "num_update"),
    *("aggregate_num", "multi_precision", "allow_np_array", "use_fused_step", "lazy_update"),
    # Their own.
    *("momentum", "wd_lh", "lamda", "lamda1", "beta", "beta1", "beta2", "epsilon", "eps"),
    *("eta", "momentum_correction", "skip", "last_lr", "cur_lr", "lower_bound", "upper_bound"),
    *("bias_correction", "correct_bias", "float_stable_eps", "gamma1", "gamma2", "rho"),
    *("centered", "clip_weights", "schedule_decay", "m_schedule", "warmup_epochs"),
    *("batch_scale", "updates_per_epoch", "init_updates", "num_epochs", "lbmult", "adaptive"),
    "admult",
    # Schedulers.
    *("base_lr", "base_lr_orig", "warmup_steps", "warmup_begin_lr", "warmup_final_lr"),
    *("factor", "stop_factor_lr", "count", "cur_step_ind", "power", "max_update", "max_steps"),
    "final_lr",
)
_KINDS: dict[str, _Kind] = {
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(("lr_mult", "wd_mult"), _dict_of(_number)),
    "_index_update_count": _dict_of(_number),
    "_all_index_update_counts": _dict_of(_dict_of(_number)),
    "idx2name": _dict_of(_text),
    "sym_info": _symbols,
    "lr_scheduler": _scheduler,
    **dict.fromkeys(("warmup_strategy", "warmup_mode"), _text),
    "step": _step,
    "cumgrads": _dict_of(_dict_of(_array)),
}
