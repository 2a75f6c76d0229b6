"""Schedules as MXNet pickles them, and as ours.

MXNet's remember how far they are; ours give the rate of any update.
"""

import bisect
from typing import Any

from jaxmxopt._core import schedules as lr_scheduler
from jaxmxopt._mxnet.record import MXNetRecord

__all__ = ["schedule_of", "schedule_record"]

_MODULE = "mxnet.lr_scheduler"
# MXNet's attributes, and which argument each is where the names differ.
_ARGUMENTS = {
    "FactorScheduler": {"step": "step", "factor": "factor", "stop_factor_lr": "stop_factor_lr"},
    "MultiFactorScheduler": {"step": "step", "factor": "factor"},
    "PolyScheduler": {"max_update": "max_update", "power": "pwr", "final_lr": "final_lr"},
    "CosineScheduler": {"max_update": "max_update", "final_lr": "final_lr"},
}
# How far it is.
_PROGRESS = {
    "FactorScheduler": ("count",),
    "MultiFactorScheduler": ("cur_step_ind",),
    "PolyScheduler": ("base_lr_orig",),
    "CosineScheduler": ("base_lr_orig",),
}
_WARMUP = ("warmup_steps", "warmup_begin_lr", "warmup_mode")


def schedule_of(record: MXNetRecord) -> lr_scheduler.LRScheduler:
    """Makes the schedule that goes on as a recorded one would.

    Raises:
        ValueError: it is not one of MXNet's, or lacks an attribute.
    """
    if record.name not in _ARGUMENTS or record.module != _MODULE:
        raise ValueError(
            f"lr_scheduler must be one of MXNet's own, got {record.module}.{record.name}: give "
            "one that does the same."
        )
    attributes = record.attributes
    names = {**_ARGUMENTS[record.name], **{name: name for name in _WARMUP}}
    needed = (*names, *_PROGRESS[record.name], "base_lr", "warmup_final_lr")
    missing = [name for name in needed if name not in attributes]
    if missing:
        raise ValueError(f"{record.name} must have {missing[0]}.")
    arguments = {argument: attributes[name] for name, argument in names.items()}
    try:
        arguments["base_lr"] = _first_rate(record.name, attributes)
        return getattr(lr_scheduler, record.name)(**arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{record.name} cannot be made again: {error}") from None


def _first_rate(name: str, attributes: dict[str, Any]) -> float:
    """The rate that a schedule began with."""
    first, now = attributes["warmup_final_lr"], attributes["base_lr"]
    if name in ("PolyScheduler", "CosineScheduler"):
        return attributes["base_lr_orig"]
    done = attributes["count"] // attributes["step"] if name == "FactorScheduler" else None
    drops = attributes["cur_step_ind"] if done is None else done
    factor, floor = attributes["factor"] ** drops, attributes.get("stop_factor_lr", 0.0)
    expected = max(first * factor, floor) if drops else first
    if abs(now - expected) <= 1e-9 * abs(expected):
        return first
    # Another rate was given to the optimizer.
    return now / factor if factor > 0 and now != floor else now


def schedule_record(schedule: Any, num_update: int) -> MXNetRecord | None:
    """Records a schedule as MXNet's would be after `num_update` updates.

    Raises:
        ValueError: MXNet has no such schedule.
    """
    if schedule is None:
        return None
    name = type(schedule).__name__
    if name not in _ARGUMENTS or type(schedule) is not getattr(lr_scheduler, name):
        raise ValueError(f"lr_scheduler must be one that MXNet has, got {schedule!r:.200}.")
    base, warm = float(schedule.base_lr), num_update >= schedule.warmup_steps
    attributes = {name: getattr(schedule, name) for name in _WARMUP}
    attributes |= {at: getattr(schedule, own) for at, own in _ARGUMENTS[name].items()}
    attributes["warmup_final_lr"] = base
    attributes["base_lr"] = float(schedule(num_update)) if warm else base
    if name == "FactorScheduler":
        attributes["count"] = schedule.step * max(0, (num_update - 1) // schedule.step) * warm
    elif name == "MultiFactorScheduler":
        drops = bisect.bisect_left(schedule.step, num_update) * warm
        attributes |= {"step": list(schedule.step), "cur_step_ind": drops}
        attributes["count"] = schedule.step[drops - 1] if drops else 0
    else:
        attributes["base_lr_orig"] = base
        attributes["max_steps"] = schedule.max_update - schedule.warmup_steps
    return MXNetRecord(_MODULE, name, attributes)
