"""Optimizers as MXNet pickles them, and as definitions with counts."""

from collections.abc import Hashable
from typing import Any, NamedTuple

from jaxmxopt._algorithms import ALGORITHMS, LARS, LBSGD, Nadam
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._mxnet.schedules import schedule_of

__all__ = ["Counts", "algorithm_of", "attribute_names", "counts_of", "definition_of", "kept_of"]

# Under which name MXNet keeps an argument, where it is another.
_RENAMED: dict[tuple[str, int], dict[str, str]] = {
    ("AdaGrad", 1): {"eps": "float_stable_eps"},
    ("GroupAdaGrad", 1): {"eps": "float_stable_eps"},
    ("AdaGrad", 2): {"eps": "epsilon"},
    ("GroupAdaGrad", 2): {"eps": "epsilon"},
    ("LARS", 2): {"eps": "epsilon"},
    ("RMSProp", 2): {"gamma1": "rho", "gamma2": "momentum"},
}
# Fields that no file has under any name.
_OURS = {
    *("learning_rate", "lr_scheduler", "param_idx2name", "lr_mult", "wd_mult"),
    *("seed", "begin_epoch"),
}
_LARGEST_COUNT = 2**31 - 1


class Counts(NamedTuple):
    """How far an optimizer was.

    Attributes:
        num_update: the largest count.
        device: whose counts were raised last.
        by_device: counts by index, by device.
    """

    num_update: int
    device: int
    by_device: dict[int, dict[Hashable, int]]

    def of(self, index: Hashable, begin: int) -> int:
        """The count of one index: the largest of any device."""
        return max((counts.get(index, begin) for counts in self.by_device.values()), default=begin)


def algorithm_of(record: MXNetRecord) -> type[OptimizerDef] | None:
    """The class of definitions of a recorded optimizer, None if it is not one of MXNet's."""
    found = ALGORITHMS.get(record.name)
    ours = isinstance(found, type) and issubclass(found, OptimizerDef) and found is not OptimizerDef
    return found if ours and record.module.split(".")[0] == "mxnet" else None


def attribute_names(kind: type[OptimizerDef], version: int) -> dict[str, str]:
    """The fields of an algorithm that MXNet keeps as attributes, and under which name each."""
    renamed = _RENAMED.get((kind.__name__, version), {})
    return {name: renamed.get(name, name) for name in kind._described if name not in _OURS}


def definition_of(record: MXNetRecord, lr_scheduler: Any = None) -> OptimizerDef:
    """Makes the definition of a recorded optimizer.

    Args:
        record: of an optimizer of MXNet's own.
        lr_scheduler: in place of the recorded one.

    Raises:
        ValueError: it is not one of MXNet's own, or a hyperparameter is one that it cannot have.
    """
    kind = algorithm_of(record)
    if kind is None:
        raise ValueError(
            f"the optimizer must be one of MXNet's own, got {record.module}.{record.name}."
        )
    recorded = record.attributes.get("lr_scheduler")
    if lr_scheduler is None and recorded is not None:
        lr_scheduler = schedule_of(recorded)
    try:
        return kind(**_arguments(kind, record, lr_scheduler))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{record.name} cannot be made again: {error}") from None


def _arguments(kind: type[OptimizerDef], record: MXNetRecord, lr_scheduler: Any) -> dict[str, Any]:
    """The arguments of a definition, as far as they are recorded."""
    version, attributes = record.version or 1, record.attributes
    arguments: dict[str, Any] = {
        "lr_scheduler": lr_scheduler,
        "param_idx2name": attributes.get("idx2name") or None,
        "lr_mult": attributes.get("lr_mult") or None,
        "wd_mult": _wd_mult(kind, attributes, version) or None,
    }
    if lr_scheduler is None:
        arguments["learning_rate"] = attributes.get("lr")
    for field, name in attribute_names(kind, version).items():
        if name in attributes:
            value = attributes[name]
            arguments[field] = bool(value) if kind._described[field].kind is bool else value
    if kind is LARS and version == 2:
        arguments["momentum_correction"] = False
    if kind is LBSGD:
        each = attributes.get("updates_per_epoch") or 1
        arguments["begin_epoch"] = int(attributes.get("init_updates") or 0) // int(each)
    return arguments


def _wd_mult(kind: type[OptimizerDef], attributes: dict[str, Any], version: int) -> Any:
    """Factors of the decay; version 2 decays all weights where version 1 leaves some out."""
    given = dict(attributes.get("wd_mult") or {})
    if version == 2:
        for name in (attributes.get("idx2name") or {}).values():
            if not name.endswith(kind._decaying):
                given.setdefault(name, 1.0)
    return given


def counts_of(record: MXNetRecord) -> Counts:
    """How far a recorded optimizer was.

    Raises:
        ValueError: a count is not one.
    """
    attributes = record.attributes
    current = attributes.get("_index_update_count") or {}
    by_device = attributes.get("_all_index_update_counts") or {0: current}
    for count in (attributes["num_update"], *(n for c in by_device.values() for n in c.values())):
        if type(count) is not int or not 0 <= count <= _LARGEST_COUNT:
            raise ValueError(f"counts must be integers in [0, {_LARGEST_COUNT}], got {count!r}.")
    device = next((device for device, counts in by_device.items() if counts == current), None)
    return Counts(attributes["num_update"], 0 if device is None else device, by_device)


def kept_of(record: MXNetRecord | None, opt: OptimizerDef, index: Hashable) -> dict[str, Any]:
    """Slots of one weight that MXNet keeps in the optimizer, as far as they are recorded."""
    if record is None:
        return {}
    attributes = record.attributes
    if isinstance(opt, Nadam):
        return {"m_schedule": attributes.get("m_schedule")}
    if isinstance(opt, LARS) and attributes.get("cur_lr") is not None:
        factor = opt._multipliers(index)[0]
        return {"last_lr": attributes["cur_lr"] * (1.0 if factor is None else factor)}
    if isinstance(opt, LBSGD):
        kept = dict((attributes.get("cumgrads") or {}).get(index, {}))
        # A number where nothing has been added up yet.
        if isinstance(kept.get("cum_grad"), (int, float)):
            del kept["cum_grad"]
        return kept
    return {}
