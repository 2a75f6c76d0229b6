"""Several results of one loop on a CPU, where XLA would give each a loop of its own.

XLA fuses what one array is computed from into one loop. It does so for several arrays at once
where they are results of one fusion; such a one is put behind them, which itself does nothing.
XLA then fuses into it what they are computed from, as far as that is sums, products and choices,
and what several of them need is read once.

XLA aborts the process where all results of such a fusion but one are unused, constant or the
same. So it is for programs that are the engine's own and return all results, and for a caller's
where the engine has put `opaque` before and behind. And only with the releases of jaxlib that
have been tested for it, as XLA promises nothing of a fusion that is not its own.
"""

import contextlib
import functools
import threading
from collections.abc import Generator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jaxlib.version
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxmxopt._core.numeric import on_cpu

__all__ = [
    "SUPPORTED",
    "in_one_loop",
    "is_compiled_for_one",
    "is_known",
    "is_own_program",
    "makes_own_program",
    "needs_all",
    "together",
]

_TESTED = ("0.10.0", "0.10.1", "0.10.2")

_needs_all = ContextVar("_needs_all", default=False)


def together(*arrays: jax.Array) -> Sequence[jax.Array]:
    """Returns arrays of one shape as they are, in a form that XLA can compute in one loop.

    What costs more than a product (a root, a quotient) XLA computes before, in a loop of its own,
    so let such things be computed from what this returns. The rule must return all of them, and
    at least two must depend on the arguments of the program, in different ways.
    """
    return _together.bind(*arrays) if in_one_loop() else arrays


def in_one_loop() -> bool:
    """Whether what `together` is given shares a loop, in the rule that is being traced."""
    return SUPPORTED and _needs_all.get()


@contextlib.contextmanager
def needs_all(kept: bool) -> Generator[None]:
    """While a rule is traced: whether it is for a program that needs all results of the rule."""
    token = _needs_all.set(kept)
    try:
        yield
    finally:
        _needs_all.reset(token)


def is_known(rule: Any) -> bool:
    """Whether a rule is of this package, and so returns all that it gives to `together`.

    A subclass elsewhere may call one and leave out some of its results.
    """
    # Not the name of the function, which decorators copy.
    module = getattr(getattr(rule, "__func__", None), "__globals__", {}).get("__name__")
    return str(module).startswith(f"{__package__}.")


def makes_own_program(slots: Any) -> bool:
    """Whether results may share loops in a jitted function that is called now.

    That is where it is compiled by itself, which it is not under any transformation of JAX, for
    one CPU, with a jaxlib that has been tested.

    Args:
        slots: of any of the weights; they are where the others are.
    """
    return is_own_program() and on_cpu() and _on_one_device(slots)


def is_own_program() -> bool:
    """Whether a jitted function that is called now is a program by itself, with such a jaxlib."""
    return SUPPORTED and _trace_state() == _no_trace


def _on_one_device(slots: Any) -> bool:
    # All slots of a weight lie alike.
    places = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(slots)[:1])
    return all(place is None or place.num_devices == 1 for place in places)


def is_compiled_for_one(ctx: Any) -> bool:
    """Whether what is being lowered is for one device, and not exported.

    What is exported may be compiled by another release.
    """
    module = ctx.module_context
    alone = getattr(module.axis_context, "num_devices", None) == 1
    return alone and not getattr(module.lowering_parameters, "for_export", True)


def _fused(ctx: Any, *arrays: Any) -> Any:
    """The operation: a fusion whose results are its arguments."""
    if not is_compiled_for_one(ctx):
        return arrays
    fusion = ir.Operation.create(
        "mhlo.fusion",
        results=[array.type for array in arrays],
        operands=list(arrays),
        attributes={"fusion_kind": ir.Attribute.parse("#mhlo<fusion_kind kLoop>")},
        regions=1,
    )
    body = fusion.regions[0].blocks.append(*fusion.results.types)
    with ir.InsertionPoint(body):
        ir.Operation.create("mhlo.return", operands=list(body.arguments))
    return list(fusion.results)


SUPPORTED = jaxlib.version.__version__ in _TESTED
_no_trace: Any = None
_together = Primitive("together")
_together.multiple_results = True
_together.def_impl(lambda *arrays: list(arrays))
_together.def_abstract_eval(lambda *arrays: list(arrays))
# Under a transformation each has a loop of its own.
batching.primitive_batchers[_together] = lambda arrays, axes: (list(arrays), list(axes))
ad.primitive_jvps[_together] = lambda arrays, tangents: (list(arrays), list(tangents))

if SUPPORTED:
    from jax.extend.core import get_opaque_trace_state
    from jax.extend.mlir import ir

    # Not a function of Python's, as every update calls it.
    _trace_state = functools.partial(get_opaque_trace_state, convention="nnx")

    def _remember() -> None:
        global _no_trace
        _no_trace = _trace_state()

    # In another thread, as this one may be tracing while it imports. Without threads, as when the
    # interpreter ends, no state is equal to None.
    with contextlib.suppress(RuntimeError):
        _thread = threading.Thread(target=_remember)
        _thread.start()
        _thread.join()

    mlir.register_lowering(_together, lambda ctx, *arrays: arrays)
    mlir.register_lowering(_together, _fused, platform="cpu")
