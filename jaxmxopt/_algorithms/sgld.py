"""Stochastic gradient Langevin dynamics."""

import zlib
from typing import Annotated, Any, NamedTuple

import jax
from jax import random

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.config import Interval, Static
from jaxmxopt._core.numeric import clip, decay, sqrt
from jaxmxopt._core.slots import Like

__all__ = ["SGLD"]

# A stored key means the same whatever JAX's default generator is.
GENERATOR = "threefry2x32"


class SGLDSlots(NamedTuple):
    """Key of the next noise, two uint32."""

    key: jax.Array


class SGLDRates(NamedTuple):
    """Learning rate, decay and the standard deviation of the noise."""

    lr: Any
    wd: Any
    deviation: Any


class SGLD(OptimizerDef):
    r"""Stochastic gradient Langevin dynamics (Welling and Teh, 2011).

    .. math::

        w = w - \frac{\eta}{2}
            \left(\mathrm{clip}(\mathrm{rescale\_grad}\, g) + \mathrm{wd}\,w\right)
            + \sqrt{\eta}\,\xi, \qquad \xi \sim \mathcal{N}(0, 1)

    The rate of the noise has the weight's `lr_mult` in it. The noise is reproducible: it depends
    on `seed`, the weight's index and the number of updates. Chains under `vmap` share their noise
    unless each chain gets a key of its own, as below. MXNet draws the noise from a global
    generator, so the trajectories agree in distribution. A `RowSparse` gradient acts as the dense
    gradient: the noise is for every row.

    Attributes:
        seed: seed of the noise, 0 or more and below 2³²; static.

    Slot `key` is a vector of two uint32, whatever the weight.

    References:
        Welling, Teh: Bayesian learning via stochastic gradient Langevin dynamics. ICML 2011.
        MXNet: `mxnet.optimizer.SGLD`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.SGLD(learning_rate=0.01, seed=7), jnp.zeros(10_000)
        >>> params, state = opt.step(params, jnp.zeros(10_000), opt.init(params))
        >>> print(f"{params.std():.1f}")
        0.1

        Four chains; the number of a chain flips bits of its key:

        >>> import jax
        >>> own = lambda leaf, chain: leaf ^ chain if leaf.dtype == jnp.uint32 else leaf
        >>> begun = lambda w, chain: jax.tree.map(lambda leaf: own(leaf, chain), opt.init(w))
        >>> params, chains = jnp.zeros((4, 3)), jnp.arange(4, dtype=jnp.uint32)
        >>> state = jax.vmap(begun)(params, chains)
        >>> params, state = jax.vmap(opt.step)(params, jnp.zeros((4, 3)), state)
        >>> print(len(jnp.unique(params)))
        12
    """

    seed: Static[Annotated[int, Interval(low=0, high=2**32 - 1)]] = 0

    def slots(self, like: Like) -> SGLDSlots:
        # Python's own hash differs from process to process.
        own = zlib.crc32(str(like.index).encode())
        key = random.fold_in(random.key(self.seed, impl=GENERATOR), own)
        return SGLDSlots(like.array(random.key_data(key), axes=(None,)))

    def rates(self, lr: Any, wd: Any, t: Any) -> SGLDRates:
        return SGLDRates(lr, wd, sqrt(lr))

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        key, now = random.split(random.wrap_key_data(slots.key, impl=GENERATOR))
        noise = rates.deviation * random.normal(now, weight.shape, weight.dtype)
        g = clip(grad * self.rescale_grad, self.clip_gradient)
        new = weight - rates.lr / 2 * (g + decay(rates.wd, weight))
        return new + noise, SGLDSlots(random.key_data(key))
