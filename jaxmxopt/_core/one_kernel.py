"""One kernel for a loop of small steps on a CPU, where XLA would run a kernel for each operation.

XLA's CPU compiler makes one function of a loop that it finds small, and so of any call that is
marked as it marks such a loop. It has no fallback for what such a function cannot hold, and a
loop over places of an array is no form for several devices, for `jax.vmap` or for derivatives. So
the computation is given in two forms, of which the lowering chooses. `checkify` sees inside of
neither.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jaxmxopt._core.in_place import apart
from jaxmxopt._core.numeric import on_cpu
from jaxmxopt._core.one_loop import SUPPORTED, is_compiled_for_one
from jaxmxopt._core.programs import operations, used

__all__ = ["NoKernelError", "in_one_kernel"]

# What XLA's CPU compiler calls a call that it compiles to a kernel.
_MARK = "xla_cpu_small_call"

# Operations that are loops over elements. Of sums XLA makes several steps, which a kernel may not
# hold.
_LOOPS = frozenset(
    """
    abs add and broadcast_in_dim clamp convert_element_type copy cos div dynamic_slice
    dynamic_update_slice eq erf exp exp2 expm1 gather ge gt integer_pow is_finite le log log1p
    logistic lt max min mul ne neg not optimization_barrier or pow reshape round rsqrt select_n sign
    sin slice sqrt square squeeze stop_gradient sub tanh xor
    """.split()  # noqa: SIM905
)
# Numbers that a CPU computes with.
_NUMBERS = frozenset(
    """
    bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64
    """.split()  # noqa: SIM905
)
# The bytes of what an operation may give. XLA divides larger ones among threads, four times as
# large at the latest, for which a kernel has no form in some places.
_LARGEST = 65536


class NoKernelError(Exception):
    """A computation has no form that becomes a kernel."""


def in_one_kernel(
    kernel: Callable[..., Any], form: Callable[..., Any], *args: Any, loops: int = 1
) -> Any:
    """Returns `form(*args)`, in a program for one CPU by way of `kernel(*args)`.

    Args:
        kernel: a form of few operations in loops, for which XLA makes one kernel, run by one
            thread. It is left out where it has more loops in each other than it says, or operations
            that are no loops over at most 64 KiB of elements, or numbers of which XLA converts
            whole arrays (bfloat16), and where it raises `NoKernelError`.
        form: the form for all else: other devices, several of them, `jax.vmap`, derivatives.
        *args: pytrees of arrays.
        loops: how many loops in each other the kernel has by itself.
    """
    alone = jax.sharding.get_abstract_mesh().empty and not _watched()
    if not (SUPPORTED and on_cpu() and alone and all(map(_is_plain, jax.tree.leaves(args)))):
        return form(*args)
    try:
        inside = jax.make_jaxpr(kernel)(*args)
    except NoKernelError:
        return form(*args)
    if not all(map(_is_small_loop, operations(inside.jaxpr, loops))):
        return form(*args)
    outside, shapes = jax.make_jaxpr(form, return_shape=True)(*args)
    results = _either.bind(
        *inside.consts,
        *outside.consts,
        *jax.tree.leaves(args),
        inside=inside.jaxpr,
        outside=outside.jaxpr,
        held=(len(inside.consts), len(outside.consts)),
    )
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _watched() -> bool:
    """Whether somebody wants to see every operation."""
    config: Any = jax.config
    return config.jax_disable_jit or config.jax_debug_nans or config.jax_debug_infs


def _is_plain(array: Any) -> bool:
    """Whether an array is of numbers that a CPU has, some, and its type says nothing of devices."""
    numbers = str(jnp.result_type(array)) in _NUMBERS and jnp.size(array) > 0
    return numbers and jax.typeof(array).sharding.mesh.empty


def _is_small_loop(operation: Any) -> bool:
    name = operation.primitive.name
    # What is written to a place of an array stays in it.
    written = operation.invars[1:2] if name == "dynamic_update_slice" else operation.outvars
    sizes = [value.aval.size * value.aval.dtype.itemsize for value in written]
    numbers = all(str(value.aval.dtype) in _NUMBERS for value in operation.outvars)
    return name in _LOOPS and numbers and max(sizes) <= _LARGEST


_either = Primitive("in_one_kernel")
_either.multiple_results = True


def _kernel(*args: Any, inside: Any, outside: Any, held: tuple[int, int]) -> list[Any]:
    """The form for one CPU."""
    del outside
    consts, args = args[: held[0]], args[sum(held) :]
    given = list(zip((*consts, *args), used(inside), strict=True))
    arrays = [one for one, use in given if one.ndim and use]
    # Numbers travel together: XLA runs some steps of a program in one thread, and divides more.
    dtypes = list(dict.fromkeys(one.dtype for one, _ in given if not one.ndim))
    numbers = [
        jnp.stack([one for one, _ in given if not one.ndim and one.dtype == dtype])
        for dtype in dtypes
    ]

    def run(numbers: list[Any], arrays: list[Any]) -> tuple[list[Any], Any]:
        kinds, rest = dict(zip(dtypes, map(iter, numbers), strict=True)), iter(arrays)

        def taken(one: Any, use: bool) -> Any:
            if not one.ndim:
                return next(kinds[one.dtype])
            return next(rest) if use else jnp.zeros(one.shape, one.dtype)

        with set_xla_metadata(**{_MARK: "false"}):
            every = [taken(*one) for one in given]
            program = ClosedJaxpr(inside, every[: len(consts)])
            # XLA aborts the process where such a call has an argument that nothing reads.
            read = sum(some[0].astype(jnp.float32) for some in numbers)
            return jaxpr_as_fun(program)(*every[len(consts) :]), read

    with set_xla_metadata(**{_MARK: "true"}):
        return apart(run)(numbers, arrays)[0]


def _form(*args: Any, inside: Any, outside: Any, held: tuple[int, int]) -> list[Any]:
    """The form for all else."""
    del inside
    return jaxpr_as_fun(ClosedJaxpr(outside, args[held[0] : sum(held)]))(*args[sum(held) :])


_lowered_kernel = mlir.lower_fun(_kernel, multiple_results=True)
_lowered_form = mlir.lower_fun(_form, multiple_results=True)


def _lowered(ctx: Any, *args: Any, **programs: Any) -> Any:
    lowered = _lowered_kernel if is_compiled_for_one(ctx) else _lowered_form
    return lowered(ctx, *args, **programs)


def _mapped(args: Any, axes: Any, **programs: Any) -> Any:
    """The rule for `jax.vmap`: what does not depend on what is mapped stays one for all."""
    form = functools.partial(_form, **programs)
    mapped = functools.partial(jax.vmap, in_axes=tuple(axes))

    def axis_of(number: int) -> int | None:
        try:
            jax.eval_shape(mapped(lambda *given: form(*given)[number], out_axes=None), *args)
        except ValueError:
            return 0
        return None

    out_axes = [axis_of(number) for number in range(len(programs["outside"].outvars))]
    return mapped(form, out_axes=out_axes)(*args), out_axes


def _derived(args: Any, tangents: Any, **programs: Any) -> Any:
    """The rule for derivatives, along the tangents that are there."""
    moving = [place for place, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]

    def of_moving(*values: Any) -> list[Any]:
        full = list(args)
        for place, value in zip(moving, values, strict=True):
            full[place] = value
        return _form(*full, **programs)

    primals = [args[place] for place in moving]
    return jax.jvp(of_moving, primals, [tangents[place] for place in moving])


_either.def_impl(_form)
_either.def_abstract_eval(
    lambda *_, inside, outside, held: [result.aval for result in outside.outvars]
)
mlir.register_lowering(_either, _lowered_form)
mlir.register_lowering(_either, _lowered, platform="cpu")
batching.primitive_batchers[_either] = _mapped
ad.primitive_jvps[_either] = _derived
