"""Which definitions share compiled functions.

Those of one structure do: a definition made anew compiles nothing. But a function in the structure,
such as a schedule, may read what changes, and may hold what is to be freed. What is compiled with
one belongs to the definition, and to those that `replace` makes of it.
"""

import operator
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxmxopt._core.config import Config

__all__ = ["functions_in", "hand_on", "program_of"]

_RUNS = "_runs"


def program_of(owner: Any, make: Any, *key: Any, own: bool) -> Callable[..., Any]:
    """Returns `make(*key)`, made once for all definitions that share it.

    Args:
        owner: the definition, without what has been done to it since the user gave it.
        make: of the structure of a definition, and more, a jitted function; under `lru_cache`.
        key: its arguments.
        own: whether what it makes is called by itself, not in a trace of a caller's.
    """
    functions = list(functions_in(owner))
    # jax.jit, too, takes a function of a module for what it was when it was traced.
    if not functions or (own and all(map(_is_of_a_module, functions))):
        return make(*key)
    runs = owner.__dict__.setdefault(_RUNS, {})
    if (make, key) not in runs:
        runs[make, key] = make.__wrapped__(*key)
    return runs[make, key]


def hand_on(old: Any, new: Any) -> Any:
    """Lets a definition share what another has compiled, where both have the same functions."""
    runs = old.__dict__.get(_RUNS)
    if runs is not None:
        mine, theirs = list(functions_in(old)), list(functions_in(new))
        if len(mine) == len(theirs) and all(map(operator.is_, mine, theirs)):
            new.__dict__[_RUNS] = runs
    return new


def functions_in(value: Any) -> Iterator[Any]:
    """The functions, and objects that are called as such, in a record of hyperparameters."""
    if isinstance(value, Config) and getattr(value, "_is_value", True):
        for name in value._described:
            yield from functions_in(value.__dict__[name])
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from functions_in(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from functions_in(part)
    elif callable(value):
        yield value


def _is_of_a_module(function: Any) -> bool:
    """Whether a function holds nothing of its own."""
    if not isinstance(function, types.FunctionType):
        return False
    return not (function.__closure__ or function.__defaults__ or function.__kwdefaults__)
