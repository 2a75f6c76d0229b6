"""A rate that finds itself."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmxopt._algorithms import AdamW
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.checks import check_pair
from jaxmxopt._core.config import DecayRate, Node, Positive, Static
from jaxmxopt._core.definition import Definition, Maker
from jaxmxopt._core.engine import Given
from jaxmxopt._core.names import Tree
from jaxmxopt._core.numeric import clip, compute_dtype
from jaxmxopt._core.rates import opened
from jaxmxopt._core.slots import Like
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State, counted, masters, wrapper_slots
from jaxmxopt._wrappers.around import Around

__all__ = ["Prodigy", "ProdigySlots"]


@wrapper_slots(lambda slots: ("first", "drift"))
class ProdigySlots(NamedTuple):
    """The estimate of the distance to the solution, and what it is made of.

    Attributes:
        inner: the slots of the algorithm inside.
        first: the weights at first, in float32 at least.
        drift: the weighted sum of the gradients, likewise.
        d: float32 scalar, the estimate.
        d_max: the largest estimate so far.
        numerator: of the estimate.
    """

    inner: Any
    first: Any
    drift: Any
    d: jax.Array
    d_max: jax.Array
    numerator: jax.Array


class Prodigy(Around):
    r"""Multiplies the rate by an estimate of how far the solution is (Mishchenko, Defazio 2023).

    With the rate :math:`\eta_t` of the algorithm inside, its bias correction and the factor of a
    weight included, and sums over all weights:

    .. math::

        n &= \beta_3 n + \frac{d^2}{d_0} \eta_t \langle g, w_0 - w \rangle \\
        s &= \beta_3 s + \frac{d^2}{d_0} \eta_t\, g \\
        \hat d &= \mathrm{d\_coef} \frac{n}{\|s\|_1}

    The new :math:`d` is the largest :math:`\hat d` so far, which `growth_rate` may hold back. The
    algorithm makes its step with the old :math:`d`: with the rate :math:`d \eta_t` and the gradient
    :math:`d g`, which leaves the direction of an Adam as it is. Its epsilon is multiplied by the
    new :math:`d`. A rate of 1 is meant to need no search; schedules that fall work as ever.

    `update` of one weight, and each group of `Groups`, has an estimate of its own. A
    decay that is added to the gradient is not multiplied by :math:`d`: use AdamW.

    Attributes:
        definition: the algorithm; by default the authors', AdamW without bias correction.
        beta3: :math:`\beta_3` in [0, 1); None for the root of the algorithm's `beta2`.
        d0: the first estimate, above 0.
        d_coef: multiplies the estimate: what to tune, between 0.5 and 2.
        growth_rate: the most by which the estimate grows in an update; None for no limit.
        safeguard_warmup: :math:`d` in place of :math:`d \eta_t` in :math:`s`; static.

    Slots: `first` and `drift` like the weight, three numbers: 8 bytes, beside AdamW's 8, and about
    8 operations a parameter.

    References:
        Mishchenko, Defazio: Prodigy: an expeditiously adaptive parameter-free learner. ICML 2024,
        arXiv:2306.06101. Compared with `prodigyopt.Prodigy`.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> opt, w = mxopt.Prodigy(d0=0.1), jnp.array([1.0, -1.0])
        >>> w, state = opt.step(w, jnp.array([2.0, 3.0]), opt.init(w))
        >>> print(w, state.slots.d)
        [ 0.684 -1.316] 0.1
    """

    definition: Node[Definition] = dataclasses.field(
        default=AdamW(learning_rate=1.0, epsilon=1e-8, correct_bias=False), kw_only=False
    )
    beta3: DecayRate | None = None
    d0: Positive = 1e-6
    d_coef: Positive = 1.0
    growth_rate: Positive | None = None
    safeguard_warmup: Static[bool] = False

    _joint = True
    _slots_type = ProdigySlots

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.definition, OptimizerDef):
            raise TypeError(
                "Prodigy: definition must be an algorithm such as jaxmxopt.AdamW(), got "
                f"{type(self.definition).__name__}; other wrappers go around Prodigy."
            )
        if self.beta3 is None and not hasattr(self.definition, "beta2"):
            raise ValueError(
                f"Prodigy: beta3 must be given, as {type(self.definition).__name__} has no beta2."
            )

    def _own(self, tree: Tree, inner: State, maker: Maker) -> dict[str, Any]:
        del inner
        likes = [Like(w.shape, compute_dtype(w.dtype)) for w in tree.leaves]
        pairs = list(zip(likes, tree.leaves, strict=True))

        def number(first: Any) -> Any:
            return maker.slot(Like((), jnp.float32).full(first, (), jnp.float32), None)

        return {
            "first": tree.like([maker.slot(like.copy(), w) for like, w in pairs]),
            "drift": tree.like([maker.slot(like.zeros(), w) for like, w in pairs]),
            "d": number(self.d0),
            "d_max": number(self.d0),
            "numerator": number(0.0),
        }

    def _fields_per_weight(self, inner: State) -> tuple[str, ...]:
        del inner
        return ("first", "drift")

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        inner, slots, d = self._inner(state), state.slots, state.slots.d
        opt: Any = opened(self.definition)
        rate = opt._without_tables()._rates_at(counted(inner.num_update), 1.0, 1.0, d.dtype).lr
        beta3 = jnp.asarray(jnp.sqrt(opt.beta2) if self.beta3 is None else self.beta3, d.dtype)
        d0 = jnp.asarray(self.d0, d.dtype)
        numerator, length = beta3 * slots.numerator, jnp.zeros_like(d)
        drift = self._own_leaves(tree, slots, "drift")
        first, full = self._own_leaves(tree, slots, "first"), masters(tree, inner)
        for n, (name, weight, grad) in enumerate(
            zip(tree.names, tree.leaves, given.grads, strict=True)
        ):
            if grad is None:
                continue
            check_pair(weight, grad, name if tree.whole else None)
            g = _dense(grad, drift[n].dtype)
            for factor in (*given.factors, opt.rescale_grad):
                g = g * jnp.asarray(factor, g.dtype)
            g = clip(g, opt.clip_gradient)
            mine = d / d0 * d * jnp.asarray(opt._multipliers(name)[0], d.dtype)
            current = (weight if full[n] is None else full[n]).astype(g.dtype)
            along = jnp.sum(g * (first[n] - current)).astype(d.dtype)
            numerator = numerator + mine * rate * along
            added = mine if self.safeguard_warmup else mine * rate
            drift[n] = beta3.astype(g.dtype) * drift[n] + added.astype(g.dtype) * g
            length = length + jnp.sum(jnp.abs(drift[n])).astype(d.dtype)
        new, d_max = self._estimate(d, slots.d_max, numerator, length, rate)
        weights, after = self._scaled(opt, inner, d, new)._advance(
            tree, inner, given._replace(factors=(*given.factors, d))
        )
        own = {"first": slots.first, "drift": tree.like(drift), "numerator": numerator}
        return weights, self._outer(after, d=new, d_max=d_max, **own)

    def _estimate(self, d: Any, d_max: Any, numerator: Any, length: Any, rate: Any) -> Any:
        """Return the new estimate, and the largest so far."""
        known = (length > 0) & (rate > 0)
        found = jnp.asarray(self.d_coef, d.dtype) * numerator / jnp.where(length > 0, length, 1)
        d_max = jnp.where(known, jnp.maximum(d_max, found), d_max)
        if self.growth_rate is None:
            return d_max, d_max
        begun = jnp.where(known & (d == jnp.asarray(self.d0, d.dtype)), jnp.maximum(d, found), d)
        grown = begun * jnp.asarray(self.growth_rate, d.dtype)
        return jnp.where(known, jnp.minimum(d_max, grown), d), d_max

    def _scaled(self, opt: Any, inner: State, d: Any, new: Any) -> Any:
        """Return the algorithm for this update."""
        if opt.lr_scheduler is not None:
            opt = opt._asked(inner)
        changes = {"learning_rate": jnp.asarray(opt.learning_rate, d.dtype) * d}
        if "epsilon" in opt._leaf_names:
            changes["epsilon"] = jnp.asarray(opt.epsilon, d.dtype) * new
        if opt.clip_gradient is not None:
            changes["clip_gradient"] = jnp.asarray(opt.clip_gradient, d.dtype) * d
        return opt._with(**changes)


def _dense(grad: Any, dtype: Any) -> jax.Array:
    return (grad.todense() if isinstance(grad, RowSparse) else grad).astype(dtype)
