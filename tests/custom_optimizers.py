"""Optimizers written for MXNet, after the port: their in-place writes became returned values."""

from typing import Any

import jax.numpy as jnp

from jaxmxopt import optimizer as mxo


class SignDescent(mxo.Optimizer):
    """Keeps a momentum, and a number of its own that it changes as it goes."""

    def __init__(self, decay: float = 0.5, shrink: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decay = decay
        self.shrink = shrink
        self.scale = 1.0

    def create_state(self, index: Any, weight: Any) -> Any:
        return jnp.zeros_like(weight)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        self.scale *= self.shrink
        grad = grad * self.rescale_grad + wd * weight
        state = self.decay * state + (1 - self.decay) * grad
        return weight - lr * self.scale * jnp.sign(state), state


class Centred(mxo.Optimizer):
    """Makes its own masters: the weight in full precision with the sum of squares."""

    def __init__(self, eps: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.eps = eps

    def create_state_multi_precision(self, index: Any, weight: Any) -> Any:
        master = weight.astype(jnp.float32)
        return master, self.create_state(index, master)

    def create_state(self, index: Any, weight: Any) -> Any:
        return jnp.zeros_like(weight)

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        master, inner = state
        master, inner = self.update(index, master, grad.astype(jnp.float32), inner)
        return master.astype(weight.dtype), (master, inner)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        self._update_count(index)
        grad = (grad - jnp.mean(grad)) * self.rescale_grad
        state = state + grad * grad
        return weight - self._get_lr(index) * grad / jnp.sqrt(state + self.eps), state


class Cautious(mxo.SGD):
    """Remembers the sizes of gradients on the host, and steps shorter after a large one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.history: dict[Any, list[float]] = {}

    def _get_lr(self, index: Any) -> float:
        known = self.history.get(index, [])
        return super()._get_lr(index) / max([1.0, *known[-3:]])

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        updated = super().update(index, weight, grad, state)
        self.history.setdefault(index, []).append(float(jnp.linalg.norm(grad)))
        return updated
