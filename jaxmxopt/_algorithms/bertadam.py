"""Adam as gluon-nlp trains BERT with it."""

from jaxmxopt._algorithms.adamw import AdamW
from jaxmxopt._core.config import Static

__all__ = ["BERTAdam"]


class BERTAdam(AdamW):
    r"""Adam with decoupled weight decay and no bias correction, as gluon-nlp has it for BERT.

    .. math::

        g &= \mathrm{clip}(\mathrm{rescale\_grad}\, g) \\
        m &= \beta_1 m + (1 - \beta_1)\, g \\
        v &= \beta_2 v + (1 - \beta_2)\, g^2 \\
        w &= w - \eta \left(\frac{m}{\sqrt{v} + \epsilon} + \mathrm{wd}\,w\right)

    This is `AdamW` with `correct_bias` off. The decay is inside of the rate, as in Devlin's code.

    Attributes:
        beta1: decay rate of the mean, in [0, 1).
        beta2: decay rate of the variance, in [0, 1).
        epsilon: added to the root, 0 or more; 0 gives NaN where no gradient has been.
        correct_bias: correct the rate for moments that begin at 0; static.

    Slots `mean` and `var` have the weight's shape; `mean` has its dtype, `var` at least float32.

    References:
        Devlin, Chang, Lee, Toutanova: BERT, pre-training of deep bidirectional transformers for
        language understanding. NAACL 2019, arXiv:1810.04805.
        gluon-nlp: `gluonnlp.optimizer.BERTAdam`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, params = mxopt.BERTAdam(learning_rate=0.1), {"w": jnp.array([1.0, -1.0])}
        >>> params, state = opt.step(params, {"w": jnp.array([2.0, 3.0])}, opt.init(params))
        >>> print(params["w"])
        [ 0.684 -1.316]
    """

    correct_bias: Static[bool] = False
