"""A learning rate given beside a scheduler takes the place of `base_lr`."""

import sys
import warnings
from typing import Any

__all__ = ["check_scheduler", "overridden", "warn_caller", "warn_of_zeros"]

# The base rate of a scheduler that was given none.
DEFAULT = 0.01
# Between a user's line and ours there may be constructors that these make.
_BETWEEN = ("jaxmxopt", "dataclasses", "functools", "inspect")


def check_scheduler(owner: str, scheduler: Any) -> None:
    """Raise unless a schedule is callable, and not a class whose instance was meant."""
    if isinstance(scheduler, type):
        raise TypeError(
            f"{owner}: lr_scheduler must be an instance, got the class {scheduler.__name__}; "
            "call it."
        )
    if scheduler is not None and not callable(scheduler):
        raise TypeError(f"{owner}: lr_scheduler must be callable, got {scheduler!r}.")


def overridden(owner: str, scheduler: Any, given: Any, *, write: bool) -> Any:
    """Return the scheduler with another base rate; warn if the old one was not the default.

    Args:
        owner: for messages.
        scheduler: what can be replaced stays as it is, and another comes back.
        given: the base rate.
        write: whether what cannot be replaced is written to, as in MXNet.

    Raises:
        ValueError: it has no base rate, or none that can be changed.
    """
    refused = f"{owner}: learning_rate={given!r} cannot override {scheduler!r}"
    replaced = not write or getattr(scheduler, "_is_value", False)
    for name in ("base_lr", "replace") if replaced else ("base_lr",):
        if not hasattr(scheduler, name):
            raise ValueError(f"{refused}, which has no {name}; give one of the two.")
    old = scheduler.base_lr
    known = isinstance(old, float) and isinstance(given, float)
    if known and old == given:
        return scheduler
    if replaced:
        scheduler = scheduler.replace(base_lr=given)
    else:
        rebase = getattr(scheduler, "_rebase", None)
        try:
            if rebase is None:
                scheduler.base_lr = given
            else:
                rebase(given)
        except AttributeError as error:
            raise ValueError(
                f"{refused}, whose base_lr cannot be set ({error}); give one of the two."
            ) from None
    if not known or old != DEFAULT:
        warn_caller(f"{owner}: learning_rate={given!r} overrides base_lr={old!r} of lr_scheduler.")
    return scheduler


def warn_caller(message: str) -> None:
    """Warns at the line outside of this package that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _is_between(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_between(frame: Any) -> bool:
    name = frame.f_globals.get("__name__", "").partition(".")[0]
    made = frame.f_code.co_filename == "<string>" and frame.f_code.co_name == "__init__"
    return made or name in _BETWEEN


def warn_of_zeros(owner: str, lr_mult: Any) -> None:
    """Warn of a multiplier of 0 for an algorithm on which the learning rate has no effect."""
    for key, factor in (lr_mult or {}).items():
        if isinstance(factor, (int, float)) and factor == 0:
            warn_caller(
                f"{owner}: lr_mult[{key!r}] of 0 freezes nothing, for the rate has no effect; "
                f"Groups with None for {key!r} does."
            )
