"""What lets XLA write results over donated arguments on a CPU; elsewhere it costs nothing.

XLA computes each result in a loop of its own. A value that several loops read is computed anew in
each of them where that seems cheap, from arguments that one of them overwrites, and these are
copied. A call that is not inlined keeps what it returns from being computed anew.
"""

import contextlib
import functools
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxmxopt._core.numeric import hidden, on_cpu
from jaxmxopt._core.one_loop import in_one_loop

__all__ = ["after", "apart", "first", "plain_calls"]


def apart(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles a function whose calls are not inlined, so that XLA fuses nothing across them.

    Args:
        function: what is called; calls inside of it are inlined as ever.
        **options: those of `jax.jit`.
    """

    @functools.wraps(function)
    def inside(*args: Any, **kwargs: Any) -> Any:
        with set_xla_metadata(inlineable="true"):
            return function(*args, **kwargs)

    jitted = jax.jit(inside, **options)

    def call(*args: Any, **kwargs: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return jitted(*args, **kwargs)

    return call


def first(function: Callable[..., Any], *arrays: Any, joined: bool = False) -> Any:
    """Returns `function(*arrays)`, computed once, whatever reads it.

    Args:
        function: what computes an array.
        *arrays: its arguments.
        joined: whether that is one of the arrays, or reads with them, of `together`: where these
            share a loop, nothing is computed before it.
    """
    if not on_cpu() or (joined and in_one_loop()) or _plain_calls.get():
        return function(*arrays)
    return apart(function)(*arrays)


_plain_calls = ContextVar("_plain_calls", default=False)


@contextlib.contextmanager
def plain_calls() -> Generator[None]:
    """While what is traced reads all of it before it writes any: `first` is an ordinary call.

    In a loop that becomes one kernel XLA cannot make a call that returns one large array.
    """
    token = _plain_calls.set(True)
    try:
        yield
    finally:
        _plain_calls.reset(token)


def after(done: jax.Array, array: jax.Array) -> jax.Array:
    """Returns an array of the shape of `done` as it is, to be read when `done` is there.

    What is computed from it can so be written over what `done` was computed from.
    """
    return hidden(done, array) if on_cpu() else array
