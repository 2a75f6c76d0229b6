"""Row-sparse gradients filled up to a few sizes, so that few programs serve batches of any size."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
from jax.core import Tracer

from jaxmxopt._core.row_keys import is_keys
from jaxmxopt._core.sparse import FEWEST, RowSparse

__all__ = ["filled"]

# So many numbers of rows keep their own program: a step that always has as many rows fills nothing.
AS_THEY_COME = 4
# From so many on, one that is there serves, however large.
MOST = 16

# By the shapes of tables, the numbers of their rows that programs have been compiled for. It is of
# the process, as the programs are. It decides on speed alone, on no number.
_sizes: dict[Any, list[tuple[int, ...]]] = {}


def filled(grads: Sequence[Any]) -> Sequence[Any]:
    """Return gradients of which the row-sparse ones have one of few numbers of rows."""
    chosen = [number for number, grad in enumerate(grads) if _is_fillable(grad)]
    if not chosen:
        return grads
    key = tuple((grads[n].shape, grads[n].dtype) for n in chosen)
    counts = tuple(grads[n].values.shape[0] for n in chosen)
    known = _sizes.setdefault(key, [])
    if counts in known:
        return grads
    new = list(grads)
    for number, size in zip(chosen, _fitting(counts, known), strict=True):
        new[number] = grads[number].padded(size)
    return new


def _fitting(counts: tuple[int, ...], known: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the sizes to fill up to: known ones if they are not too large, else new ones."""
    larger = (sizes for sizes in known if all(map(operator.ge, sizes, counts)))
    least = min(larger, key=sum, default=None)
    if least is not None and (len(known) >= MOST or sum(least) <= 2 * sum(counts)):
        return least
    sizes = counts
    if len(known) >= AS_THEY_COME:
        sizes = tuple(max(1 << (count - 1).bit_length(), FEWEST) for count in counts)
    if len(known) >= MOST:
        sizes = tuple(map(max, sizes, *known))
    if sizes not in known:
        known.append(sizes)
    return sizes


def _is_fillable(grad: Any) -> bool:
    """True if a gradient is row-sparse, well-formed, and known to one device."""
    if not isinstance(grad, RowSparse):
        return False
    parts = jax.tree.leaves(grad)
    if any(not isinstance(part, jax.Array) or isinstance(part, Tracer) for part in parts):
        return False
    if any(part.is_deleted() or len(part.sharding.device_set) > 1 for part in parts):
        return False
    rows, values = parts
    return is_keys(rows) and rows.shape == values.shape[:1] and len(grad.shape) > 0
