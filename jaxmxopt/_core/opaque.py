"""Values of which XLA knows nothing, in a program that others have written."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxmxopt._core.in_place import apart

__all__ = ["opaque"]

Tree = TypeVar("Tree")


def opaque(tree: Tree) -> Tree:
    """Returns a pytree as it is, its numbers on a CPU by way of a call that XLA does not inline.

    What comes out is no constant to XLA, and no two arrays are the same. What goes in is computed
    if anything that comes out is used. Nothing is copied, and nothing is fused across.
    """
    leaves, structure = jax.tree.flatten(tree)
    places = [n for n, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.number)]
    if places:
        results = _opaque.bind(*(leaves[place] for place in places))
        for place, result in zip(places, results, strict=True):
            leaves[place] = result
    return jax.tree.unflatten(structure, leaves)


# JAX would leave out a call that does nothing.
_call = apart(lambda *arrays: lax.optimization_barrier(arrays))


def _called(*arrays: Any) -> Any:
    # And XLA would compute one of constants alone.
    return _call(*lax.optimization_barrier(arrays))


_opaque = Primitive("opaque")
_opaque.multiple_results = True
_opaque.def_impl(lambda *arrays: list(arrays))
_opaque.def_abstract_eval(lambda *arrays: list(arrays))
batching.primitive_batchers[_opaque] = lambda arrays, axes: (_opaque.bind(*arrays), list(axes))
ad.primitive_jvps[_opaque] = lambda arrays, tangents: (_opaque.bind(*arrays), list(tangents))
mlir.register_lowering(_opaque, lambda ctx, *arrays: arrays)
mlir.register_lowering(_opaque, mlir.lower_fun(_called, multiple_results=True), platform="cpu")
