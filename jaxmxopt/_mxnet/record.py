"""The optimizer inside a `.states` file, as data: a class's name and its known attributes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._mxnet.constructors import Pending, Record, shortened
from jaxmxopt._mxnet.ndarray import CSR

__all__ = ["Budget", "MXNetRecord", "record_of"]


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
        """The version of MXNet that wrote an optimizer, 1 or 2; None if it cannot be told."""
        if "rescale_grad" not in self.attributes:
            return None
        return 2 if "use_fused_step" in self.attributes else 1


class Budget:
    """How much may still be taken out of a file.

    Through the memo of a pickle a few bytes can stand for a tree of any size.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, size: int) -> None:
        """Counts items or bytes."""
        self.left -= size
        if self.left < 0:
            raise ValueError("a file must not hold more than it has bytes for.")

    def array(self, made: Pending) -> Any:
        """Takes an array, with its bytes."""
        array = made.value
        if isinstance(array, RowSparse):
            self.spend(array.indices.nbytes + array.values.nbytes)
        elif isinstance(array, CSR):
            self.spend(array.data.nbytes + array.indices.nbytes + array.indptr.nbytes)
        elif isinstance(array, np.ndarray):
            self.spend(array.nbytes)
        return array


_Kind = Callable[[Any, Budget], Any]


class _WrongKindError(ValueError):
    """A value that is not what an attribute holds; its text is what must stand there."""


def record_of(made: Record, budget: Budget) -> MXNetRecord:
    """Takes the known attributes out of an instance.

    Raises:
        ValueError: one of them does not hold what MXNet keeps there.
    """
    attributes: dict[str, Any] = {}
    for name, value in (made.attributes or {}).items():
        take = _KINDS.get(name)
        if take is None:
            continue
        try:
            attributes[name] = take(value, budget)
        except _WrongKindError as error:
            raise ValueError(
                f"{name} of {made.of} must be {error}, got {shortened(_shown(value))}."
            ) from None
    return MXNetRecord(*made.of.key, attributes)


def _shown(value: Any) -> str:
    plain = (int, float, str, type(None))
    return repr(value) if isinstance(value, plain) else f"a {type(value).__name__}"


def _number(value: Any, budget: Budget) -> Any:
    # MXNet 2 leaves an array of one element in rescale_grad.
    if isinstance(value, Pending) and getattr(value.value, "size", 0) == 1:
        return value.value.item()
    if value is not None and not isinstance(value, (int, float)):
        raise _WrongKindError("a number")
    return value


def _text(value: Any, budget: Budget) -> str:
    if type(value) is not str:
        raise _WrongKindError("text")
    return value


def _list_of(kind: _Kind) -> _Kind:
    def take(value: Any, budget: Budget) -> Any:
        if type(value) not in (list, tuple):
            raise _WrongKindError("a list")
        budget.spend(len(value))
        return [kind(item, budget) for item in value]

    return take


def _dict_of(kind: _Kind) -> _Kind:
    def take(value: Any, budget: Budget) -> Any:
        if type(value) is not dict:
            raise _WrongKindError("a dict")
        budget.spend(len(value))
        return {key: kind(item, budget) for key, item in value.items()}

    return take


def _step(value: Any, budget: Budget) -> Any:
    kind = _number if isinstance(value, (int, float)) else _list_of(_number)
    return kind(value, budget)


def _symbols(value: Any, budget: Budget) -> Any:
    """The attributes and the names of a network's arguments, or nothing."""
    if type(value) is not tuple or len(value) not in (0, 2):
        raise _WrongKindError("nothing, or attributes and names")
    if not value:
        return ()
    return _dict_of(_dict_of(_text))(value[0], budget), _list_of(_text)(value[1], budget)


def _scheduler(value: Any, budget: Budget) -> Any:
    if value is None:
        return None
    # A scheduler has no other inside, so this does not go deep.
    if not isinstance(value, Record) or "base_lr" not in (value.attributes or {}):
        raise _WrongKindError("a scheduler or None")
    if "lr_scheduler" in (value.attributes or {}):
        raise _WrongKindError("a scheduler without another")
    return record_of(value, budget)


def _array(value: Any, budget: Budget) -> Any:
    if isinstance(value, Pending) and value.kind != "dtype":
        return budget.array(value)
    return _number(value, budget)


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
