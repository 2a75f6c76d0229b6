"""Momentum made orthogonal."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms._matrices import check_pattern, matrices_of, sizes_of
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.batches import batched
from jaxmxopt._core.config import DecayRate, Interval, NonNegative, Real, Static
from jaxmxopt._core.numeric import clip, decay, maximum, norm
from jaxmxopt._core.slots import Like

__all__ = ["Muon"]

# So many iterations on the Gram matrix lose nothing to rounding in float32; more would.
ON_GRAM = 3


class MuonSlots(NamedTuple):
    """Mean of the gradients, like the weight."""

    mom: jax.Array


class Muon(OptimizerDef):
    r"""Momentum of hidden layers' matrices, made nearly orthogonal (Jordan et al., 2024).

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        m &= \mu m + (1 - \mu) g \\
        X &= u / \max(\|u\|, \epsilon), \quad u = \mu m + (1 - \mu) g \text{ with Nesterov's
             momentum, else } m \\
        X &= a X + (b A + c A^2) X, \quad A = X X^T, \text{ as often as } \mathrm{steps} \\
        w &= w - \eta\,(s X + \mathrm{wd}\,w)

    The factor :math:`s` of a matrix with :math:`n` inputs and :math:`k` outputs is
    :math:`\sqrt{\max(1, k/n)}` (`"original"`), :math:`0.2 \sqrt{\max(n, k)}` (`"match_rms_adamw"`,
    with which rates and decays of AdamW serve) or 1 (`"none"`).

    Muon is for the matrices between the first layer and the last; `by_kind` gives embeddings,
    heads, norms and biases to AdamW. Matrices of one shape are made orthogonal as one batch, and
    the batch is divided among devices. Matrices at least twice as wide as high iterate on
    :math:`A`, three times at once, with the same numbers to rounding: at 1:4 that is two thirds of
    the arithmetic. Products are of JAX's default precision; `jax.default_matmul_precision` sets it.

    Attributes:
        momentum: :math:`\mu` in [0, 1).
        nesterov: look ahead; static.
        a: coefficient of the iteration.
        b: coefficient.
        c: coefficient.
        steps: number of iterations, 1 or more; static.
        epsilon: least norm to divide by, 0 or more.
        scale: `"original"`, `"match_rms_adamw"` or `"none"`; static.
        half: iterate in bfloat16, as torch does; static.
        matrices: the axes of a weight, `i` for inputs, `o` for outputs, `b` or a number for a
            batch of matrices; static. `"... i o"` suits kernels of flax, `"... o i"` weights of
            MXNet, equinox and torch. `"i (3 o)"` takes a fused kernel of queries, keys and values
            apart, `"i (36 o)"` each of its heads, `"i b o"` the heads of a kernel with three axes,
            `"i i i o"` merges the axes of a convolution.

    Slot `mom` has the shape and dtype of the weight (float32 beside a master): 4 bytes a
    parameter. A step takes, for a square matrix with n rows, about 30 n operations a parameter.

    References:
        Jordan et al.: Muon: an optimizer for hidden layers in neural networks. 2024,
        kellerjordan.github.io/posts/muon.
        Liu et al.: Muon is scalable for LLM training. 2025, arXiv:2502.16982.
        Compared with `torch.optim.Muon`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.Muon(learning_rate=0.1), {"w": jnp.eye(2)}
        >>> params, state = opt.step(params, {"w": jnp.eye(2)}, opt.init(params))
        >>> print(params["w"].round(2))
        [[0.89 0.  ]
         [0.   0.89]]
    """

    learning_rate: NonNegative | None = 0.02
    momentum: DecayRate = 0.95
    nesterov: Static[bool] = True
    a: Real = 3.4445
    b: Real = -4.775
    c: Real = 2.0315
    steps: Static[Annotated[int, Interval(low=1.0, high=99.0)]] = 5
    epsilon: NonNegative = 1e-7
    scale: Static[Literal["original", "match_rms_adamw", "none"]] = "original"
    half: Static[bool] = False
    matrices: Static[str] = "... i o"

    acts_on = "matrices"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pattern(type(self).__name__, self.matrices)

    def check_weight(self, weight: Like) -> None:
        sizes_of(self.matrices, weight.shape)

    def slots(self, like: Like) -> MuonSlots:
        return MuonSlots(like.zeros())

    def rule(self, rates: Any, weight: Any, grad: Any, slots: Any) -> Any:
        g = clip(self.rescale_grad * grad, self.clip_gradient)
        mom = u = self.momentum * slots.mom + (1 - self.momentum) * g
        if self.nesterov:
            u = self.momentum * mom + (1 - self.momentum) * g
        names = ("a", "b", "c", "steps", "epsilon", "scale", "half", "matrices")
        step = batched(orthogonalized, u, **{name: getattr(self, name) for name in names})
        return weight - rates.lr * (step + decay(rates.wd, weight)), MuonSlots(mom)


def orthogonalized(
    update: jax.Array,
    *,
    a: Any,
    b: Any,
    c: Any,
    steps: int,
    epsilon: Any,
    scale: str,
    half: bool,
    matrices: str,
) -> jax.Array:
    """Return an update whose matrices have singular values near a common factor."""
    x, back = matrices_of(matrices, update)
    inputs, outputs = x.shape[1:]
    if inputs > outputs:
        x = x.mT
    x = x / maximum(norm(x, axis=(1, 2)), epsilon)
    if half:
        x, a, b, c = (jnp.asarray(value, jnp.bfloat16) for value in (x, a, b, c))
    at_once = ON_GRAM if x.shape[2] >= 2 * x.shape[1] and not half else 1
    identity = jnp.eye(x.shape[1], dtype=x.dtype)[None]
    for start in range(0, steps, at_once):
        gram = x @ x.mT
        product = factor = a * identity + b * gram + c * (gram @ gram)
        for _ in range(min(at_once, steps - start) - 1):
            gram = factor @ gram @ factor
            factor = a * identity + b * gram + c * (gram @ gram)
            product = factor @ product
        x = product @ x
    x = back((x.mT if inputs > outputs else x).astype(update.dtype))
    if scale == "original":
        return max(1.0, outputs / max(inputs, 1)) ** 0.5 * x
    return 0.2 * max(inputs, outputs) ** 0.5 * x if scale == "match_rms_adamw" else x
