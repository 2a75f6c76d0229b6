"""Operators of whole lists of arrays: sums of squares, rates from them, tests for finiteness."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms import LARS
from jaxmxopt._core.checks import MismatchError, WrongKindError
from jaxmxopt._core.config import NonNegative, Real, Static
from jaxmxopt._core.gradients import all_finite as tree_is_finite
from jaxmxopt._operators.running import Array, Gradient, operator

__all__ = ["all_finite", "multi_all_finite", "multi_lars", "multi_sum_sq", "reset_arrays"]


def _of(arrays: Sequence[Any], num_arrays: int) -> list[Any]:
    if len(arrays) != num_arrays:
        raise MismatchError(f"data must hold num_arrays={num_arrays} arrays, got {len(arrays)}.")
    return list(arrays)


def _flag(data: Any, init_output: bool, out: Any) -> jax.Array:
    """Return 1 or 0, or `out`, what has been found so far, where it is 0 already."""
    if not init_output and out is None:
        raise MismatchError("init_output=False needs out, the flag of the arrays before.")
    if any(array is None for array in (data if isinstance(data, list) else [data])):
        raise WrongKindError("data must be an array, got NoneType.")
    flag = tree_is_finite(data).astype(jnp.float32).reshape(1)
    return flag if init_output else flag * out


@operator
def all_finite(
    data: Gradient, init_output: Static[bool] = True, out: Array | None = None
) -> jax.Array:
    """Return 1 if all of an array is finite, else 0, as a float32 vector of one.

    With `init_output=False` the result is 0 also where `out`, an earlier result, is 0.
    """
    return _flag(data, init_output, out)


@operator
def multi_all_finite(
    *data: Gradient, num_arrays: int = 1, init_output: Static[bool] = True, out: Array | None = None
) -> jax.Array:
    """Return 1 if all of several arrays is finite, else 0; see `all_finite`."""
    return _flag(_of(data, num_arrays), init_output, out)


@jax.jit
def _sums(arrays: list[Any], scale: Any) -> jax.Array:
    wide = [jnp.asarray(array).astype(jnp.float32) * scale for array in arrays]
    return jnp.stack([jnp.sum(jnp.square(array)) for array in wide])


@operator
def multi_sum_sq(*data: Array, num_arrays: int, scale: Real = 1.0) -> jax.Array:
    """Return the sum of squares of each array, times `scale` before, as a float32 vector."""
    return _sums(_of(data, num_arrays), scale)


@jax.jit
def _rates(opt: LARS, lrs: Any, sums: Any, wds: Any) -> jax.Array:
    size, slope = (jnp.sqrt(each) for each in sums)
    return opt._trusted(lrs, wds, size, slope)


@operator
def multi_lars(
    lrs: Array,
    weights_sum_sq: Array,
    grads_sum_sq: Array,
    wds: Array,
    eta: NonNegative,
    eps: NonNegative,
    rescale_grad: Real = 1.0,
) -> jax.Array:
    """Return the rates of LARS of several weights, given the sums of their squares."""
    opt = LARS(eta=eta, eps=eps, rescale_grad=rescale_grad)
    given = (jnp.asarray(each, jnp.float32) for each in (lrs, weights_sum_sq, grads_sum_sq, wds))
    lrs, weights, grads, wds = given
    if not lrs.shape == weights.shape == grads.shape == wds.shape:
        raise MismatchError(
            "lrs, weights_sum_sq, grads_sum_sq and wds must be of one shape, got "
            f"{lrs.shape}, {weights.shape}, {grads.shape} and {wds.shape}."
        )
    return _rates(opt._with(learning_rate=None, wd=None), lrs, (weights, grads), wds)


@operator
def reset_arrays(*data: Array, num_arrays: int) -> list[jax.Array]:
    """Return zeros in place of each array."""
    return [jnp.zeros_like(array) for array in _of(data, num_arrays)]
