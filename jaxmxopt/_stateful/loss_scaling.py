"""The loss scale of a Trainer, which decides on the host whether a step counts."""

from typing import Any

import jax

from jaxmxopt._core.loss_scale import DynamicLossScaler, LossScale, all_finite

__all__ = ["LossScaling"]


class LossScaling:
    """A loss scaler and its state.

    Args:
        scaler: None scales by 1 and lets every step count.

    Attributes:
        scaler: as given.
        state: of this step.
    """

    def __init__(self, scaler: DynamicLossScaler | None) -> None:
        if scaler is not None and not isinstance(scaler, DynamicLossScaler):
            raise TypeError(f"Trainer: loss_scaler must be a DynamicLossScaler, got {scaler!r}.")
        self.scaler = scaler
        self.state = (scaler or DynamicLossScaler(init_scale=1.0)).init()

    def judged(self, grads: Any) -> tuple[bool, LossScale]:
        """Whether gradients are finite, and the state of the next step."""
        if self.scaler is None:
            return True, self.state
        finite, following = _judged(self.scaler, self.state, grads)
        return bool(finite), following

    @property
    def divisor(self) -> float:
        """What the gradients of this step are to be divided by."""
        return 1.0 if self.scaler is None else float(self.state.loss_scale)

    @property
    def kept(self) -> LossScale | None:
        """What a file keeps."""
        return None if self.scaler is None else self.state

    def taken(self, found: Any) -> LossScale:
        """The state to go on with, given what a file kept.

        Raises:
            ValueError: that is no loss scale.
        """
        if found is None or self.scaler is None:
            return self.state
        if not isinstance(found, LossScale) or _forms(found) != _forms(self.state):
            raise ValueError(f"the file is damaged: its loss scale is {found!r}.")
        return found


@jax.jit
def _judged(scaler: DynamicLossScaler, state: LossScale, grads: Any) -> Any:
    finite = all_finite(grads)
    return finite, scaler.update(state, finite)


def _forms(state: LossScale) -> list[Any]:
    return [(getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in state]
