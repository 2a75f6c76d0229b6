"""Adam in a basis that turns with the gradients."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmxopt._core.numeric import sqrt

__all__ = ["advanced"]


def advanced(
    g: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    *sides: jax.Array,
    sided: tuple[bool, bool],
    beta1: Any,
    beta2: Any,
    shampoo_beta: Any,
    epsilon: Any,
    normalize: bool,
    first: Any,
    anew: Any,
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Return the direction of a step, and the new slots."""
    count, parts = sum(sided), iter(sides)
    left, right, left_basis, right_basis = (next(parts) if has else None for has in sided * 2)
    axes = [axis for axis, has in ((-2, sided[0]), (-1, sided[1])) if has]
    rows = None if left is None else left + (1 - shampoo_beta) * (g @ g.mT - left)
    columns = None if right is None else right + (1 - shampoo_beta) * (g.mT @ g - right)
    statistics = tuple(part for part in (rows, columns) if part is not None)
    bases = sides[count:]

    def turned(x: Any, back: bool = False) -> Any:
        if left_basis is not None:
            x = (left_basis if back else left_basis.mT) @ x
        return x if right_basis is None else x @ (right_basis.mT if back else right_basis)

    def begin() -> Any:
        # The largest eigenvalue first.
        made = tuple(jnp.linalg.eigh(part)[1][..., ::-1] for part in statistics)
        return jnp.zeros_like(g), mean, var, made

    def go_on() -> Any:
        new_mean = mean + (1 - beta1) * (g - mean)
        new_var = var + (1 - beta2) * (jnp.square(turned(g)) - var)
        step = turned(turned(new_mean) / (sqrt(new_var) + epsilon), back=True)
        if normalize:
            step = step / (sqrt(jnp.mean(jnp.square(step))) + epsilon)
        made = jax.lax.cond(anew > 0, refreshed, lambda var: (var, bases), new_var)
        return step, new_mean, *made

    def refreshed(var: Any) -> Any:
        made = list[Any]()
        for axis, part, basis in zip(axes, statistics, bases, strict=True):
            product = part @ basis
            order = jnp.argsort(-jnp.sum(basis * product, axis=-2))
            place = order[..., None] if axis == -2 else order[..., None, :]
            var = jnp.take_along_axis(var, place, axis=axis)
            product = jnp.take_along_axis(product, order[..., None, :], axis=-1)
            made.append(jnp.linalg.qr(product)[0])
        return var, tuple(made)

    step, new_mean, new_var, made = jax.lax.cond(first > 0, begin, go_on)
    found = iter(made)
    both = tuple(next(found) if has else None for has in sided)
    return step, (new_mean, new_var, rows, columns, *both)
