"""The matrices of which a weight consists."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

__all__ = ["check_pattern", "matrices_of", "sizes_of"]

_AXIS = re.compile(r"\s*(?:\(([^()]*)\)|(\.\.\.|\w+))")


def check_pattern(owner: str, pattern: str) -> None:
    """Raise ValueError unless a pattern names inputs and outputs, and nothing else but batches."""
    axes, rest = _axes_of(pattern)
    names = [name for axis in axes for name in axis]
    lone = all(sum(not name.isdigit() for name in axis) <= 1 for axis in axes)
    known = all(name in ("i", "o", "b") or name.isdigit() for name in names if name != "...")
    dots = [n for n, axis in enumerate(axes) if "..." in axis]
    if rest or not lone or not known or dots not in ([], [0]) or not {"i", "o"} <= {*names}:
        raise ValueError(
            f"{owner}: matrices must name the axes of a weight, i for inputs, o for outputs, b or "
            f"a number for a batch, such as 'i o', '... i o' or 'i (3 o)', got {pattern!r}."
        )


def sizes_of(pattern: str, shape: Sequence[int]) -> list[list[tuple[str, int]]]:
    """Return name and size of what each axis of a weight consists of; ValueError if none fit."""
    axes, _ = _axes_of(pattern)
    if axes[0] == ["..."]:
        axes = [["b"]] * (len(shape) - len(axes) + 1) + axes[1:]
    sizes = list[list[tuple[str, int]]]()
    for axis, size in zip(axes, shape, strict=False):
        known = math.prod(int(name) for name in axis if name.isdigit())
        rest = size // known if known else 0
        sizes.append([(n, int(n)) if n.isdigit() else (n, rest) for n in axis])
        if math.prod(part for _, part in sizes[-1]) != size:
            axes = []
    if len(axes) != len(shape):
        raise ValueError(f"weight must have the axes {pattern!r}, got shape {tuple(shape)}.")
    return sizes


def matrices_of(
    pattern: str, array: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Return the matrices of an array, inputs by outputs, behind one another, and the way back."""
    parts = [part for axis in sizes_of(pattern, array.shape) for part in axis]
    apart = [size for _, size in parts]
    batch = [n for n, (name, _) in enumerate(parts) if name not in ("i", "o")]
    inputs = [n for n, (name, _) in enumerate(parts) if name == "i"]
    outputs = [n for n, (name, _) in enumerate(parts) if name == "o"]
    order = batch + inputs + outputs
    moved = array.reshape(apart).transpose(order)
    shape = [math.prod(apart[n] for n in some) for some in (batch, inputs, outputs)]

    def back(matrices: jax.Array) -> jax.Array:
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return matrices.reshape(moved.shape).transpose(inverse).reshape(array.shape)

    return moved.reshape(shape), back


def _axes_of(pattern: str) -> tuple[list[list[str]], Any]:
    """Return the names in each axis of a pattern, and what is not understood."""
    axes = [str(inside or "").split() or [str(name)] for inside, name in _AXIS.findall(pattern)]
    return axes, _AXIS.sub("", pattern).strip()
