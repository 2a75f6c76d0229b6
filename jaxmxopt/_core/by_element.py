"""Programs that compute each element of an array from those at its place in others.

They are told by what they do. One that was traced for whole arrays gives the same of their parts,
also where it knows how large the whole is. All branches are computed, of which one is chosen: so
all must end, and loops are refused.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr

from jaxmxopt._core.one_kernel import NoKernelError
from jaxmxopt._core.programs import HOLDERS, REPEATED, is_variable, programs_in

__all__ = ["cost_by_element", "on_parts"]

_BY_ELEMENT = frozenset(
    """
    abs add and clamp convert_element_type copy cos div eq erf exp exp2 expm1 ge gt integer_pow
    is_finite le log log1p logistic lt max min mul ne neg not optimization_barrier or pow round
    rsqrt select_n sign sin sqrt square stop_gradient sub tanh xor
    """.split()  # noqa: SIM905
)


# Those that are computed as series, which cost so many others.
_OF_SERIES = frozenset("cos erf exp exp2 expm1 log log1p logistic pow sin tanh".split())  # noqa: SIM905
_SERIES = 10


def cost_by_element(program: ClosedJaxpr, shape: tuple[int, ...]) -> int:
    """Returns what a program costs for each element of the arrays of a shape, in operations.

    Raises:
        NoKernelError: an element comes from more than numbers and the elements at its place.
    """
    if {value.aval.shape for value in program.jaxpr.outvars} - {(), shape}:
        raise NoKernelError("Some results have another shape.")
    return sum(_costs(program, shape))


def _costs(program: Any, shape: tuple[int, ...]) -> Iterator[int]:
    if any(map(jnp.ndim, getattr(program, "consts", ()))):
        raise NoKernelError("An array belongs to the program.")
    for operation in program.eqns:
        name, given = operation.primitive.name, _shapes(operation.invars)
        if any(value.aval.shape and not is_variable(value) for value in operation.invars):
            raise NoKernelError("An array stands in the program.")
        if name in HOLDERS or name == "cond":
            for inner in programs_in(operation):
                yield from _costs(inner, shape)
            # Of branches one is chosen for each element.
            yield len(operation.outvars) if name == "cond" else 0
        elif _is_filled(operation, shape) or (name in _BY_ELEMENT and given == {(), shape}):
            yield _SERIES if name in _OF_SERIES else 1
        elif name in REPEATED or given | _shapes(operation.outvars) != {()}:
            raise NoKernelError(f"{name} is not computed element by element.")


def _shapes(values: Sequence[Any]) -> set[tuple[int, ...]]:
    return {(), *(value.aval.shape for value in values)}


def _is_filled(operation: Any, shape: tuple[int, ...]) -> bool:
    """Whether an operation makes an array of one number."""
    filled = operation.primitive.name == "broadcast_in_dim"
    return (
        filled and operation.invars[0].aval.shape == () != shape == operation.outvars[0].aval.shape
    )


def on_parts(program: ClosedJaxpr, args: Sequence[Any], width: int) -> list[Any]:
    """What a program by elements gives for parts of its arguments.

    Args:
        program: as `cost_by_element` takes.
        args: its arguments, numbers or parts of arrays.
        width: elements in a part.
    """
    inside = program.jaxpr
    known = dict(zip((*inside.constvars, *inside.invars), (*program.consts, *args), strict=True))

    def of(value: Any) -> Any:
        return known[value] if is_variable(value) else value.val

    for operation in inside.eqns:
        name, given = operation.primitive.name, list(map(of, operation.invars))
        if name in HOLDERS:
            results = on_parts(programs_in(operation)[0], given, width)
        elif name == "cond":
            branches = [on_parts(one, given[1:], width) for one in programs_in(operation)]
            results = [lax.select_n(given[0], *each) for each in zip(*branches, strict=True)]
        elif name == "broadcast_in_dim" and operation.outvars[0].aval.shape:
            results = [jnp.broadcast_to(given[0], (width,))]
        else:
            results = operation.primitive.bind(*given, **operation.params)
            results = results if operation.primitive.multiple_results else [results]
        known.update(zip(operation.outvars, results, strict=True))
    return list(map(of, inside.outvars))
