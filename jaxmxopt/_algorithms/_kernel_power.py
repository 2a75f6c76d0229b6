"""Bias corrections of the algorithms whose kernels in MXNet compute the corrections."""

from typing import Any

import jax
import numpy as np

from jaxmxopt._core.numeric import one_minus_power

__all__ = ["kernel_one_minus_power"]


def kernel_one_minus_power(beta: Any, t: Any) -> Any:
    r"""Return :math:`1 - \beta^t` for `t >= 1`.

    On the host the power is rounded to float32, as in MXNet's kernels. Traced, and where JAX
    computes in double precision, the result is right to a few units of rounding.
    """
    if isinstance(t, int) and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        return 1.0 - float(np.float32(float(np.float32(beta)) ** t))
    return one_minus_power(beta, t)
