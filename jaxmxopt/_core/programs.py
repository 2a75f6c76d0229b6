"""Walking through the programs that JAX traces."""

from collections.abc import Iterator
from typing import Any

import jax

__all__ = ["HOLDERS", "REPEATED", "is_variable", "operations", "programs_in", "used"]

_JITS = frozenset(["jit", "pjit"])
# Operations that do what the one program does that they hold.
HOLDERS = _JITS | frozenset(["closed_call", "custom_jvp_call", "custom_vjp_call"])
# Loops.
REPEATED = frozenset(["scan", "while"])


def programs_in(operation: Any) -> list[Any]:
    """The programs that an operation holds, with their constants where they have some."""
    values = jax.tree.leaves(list(operation.params.values()), is_leaf=_is_program)
    return [value for value in values if _is_program(value)]


def operations(program: Any, loops: int = 1) -> Iterator[Any]:
    """The operations of a program, but those that hold others.

    Args:
        program: what was traced.
        loops: so many loops in each other are looked into; deeper ones are operations.
    """
    for operation in program.eqns:
        repeated = operation.primitive.name in REPEATED
        if operation.primitive.name not in HOLDERS and not (repeated and loops):
            yield operation
            continue
        for inner in programs_in(operation):
            yield from operations(getattr(inner, "jaxpr", inner), loops - repeated)


def used(program: Any) -> list[bool]:
    """Which of the constants and arguments of a program its results may depend on."""
    needed = set(filter(is_variable, program.outvars))
    for operation in reversed(program.eqns):
        if needed.isdisjoint(operation.outvars):
            continue
        reads = [True] * len(operation.invars)
        if operation.primitive.name in _JITS:
            called = operation.params["jaxpr"].jaxpr
            reads = used(called)[len(called.constvars) :]
        pairs = zip(operation.invars, reads, strict=True)
        needed.update(value for value, read in pairs if read and is_variable(value))
    return [value in needed for value in (*program.constvars, *program.invars)]


def is_variable(value: Any) -> bool:
    """Whether a value of a program is none that stands in it."""
    return not hasattr(value, "val")


def _is_program(value: Any) -> bool:
    return hasattr(value, "eqns")
