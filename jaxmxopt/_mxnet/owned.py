"""Arrays out of the bytes of a file, onto JAX's default device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._mxnet.ndarray import CSR
from jaxmxopt._mxnet.record import MXNetRecord

__all__ = ["owned"]


def owned(tree: Any) -> Any:
    """Copies the arrays of a tree; those of 64 bits stay NumPy's where JAX has no such types."""
    if isinstance(tree, MXNetRecord):
        return tree._replace(attributes=owned(tree.attributes))
    if isinstance(tree, dict):
        return {key: owned(value) for key, value in tree.items()}
    if isinstance(tree, RowSparse):
        indices = _array(_narrowed(tree.indices, tree.shape[0]))
        return RowSparse.tree_unflatten(tree.shape, (indices, owned(tree.values)))
    if isinstance(tree, CSR):
        indices = _narrowed(tree.indices, tree.shape[1])
        indptr = _narrowed(tree.indptr, len(tree.data) + 1)
        return CSR(_array(tree.data), _array(indices), _array(indptr), tree.shape)
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(owned, tree))
    return _array(tree) if isinstance(tree, np.ndarray) else tree


def _narrowed(indices: Any, end: int) -> Any:
    """Indices below `end` in JAX's own dtype, where that has room for them."""
    kind = jax.dtypes.canonicalize_dtype(np.int64)
    return indices.astype(kind) if end <= np.iinfo(kind).max else indices


def _array(array: np.ndarray) -> Any:
    kept = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    # Copied here: jnp.array would compile a copy for every shape.
    return jnp.asarray(array.copy()) if kept else array.copy()
