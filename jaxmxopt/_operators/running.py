"""The run of an operator: its arguments checked, the rule of an algorithm applied once."""

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.checks import MismatchError, WrongKindError, explained, unusable
from jaxmxopt._core.config import as_number, is_declared, nearest
from jaxmxopt._core.engine import Given, advance
from jaxmxopt._core.layout import Layout
from jaxmxopt._core.names import Tree
from jaxmxopt._core.programs import put_together, taken_apart
from jaxmxopt._core.rates import opened, sealed
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._operators.rows import ROW_RULES

__all__ = [
    "Array",
    "Gradient",
    "check_counts",
    "columns",
    "limit",
    "numbers",
    "operator",
    "rates_of",
    "scalar",
    "updated",
    "updated_lists",
]

Array = jax.Array | np.ndarray
Gradient = jax.Array | np.ndarray | RowSparse
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def operator(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Check the numbers of an operator by their annotations, and name the operator in errors."""
    name = function.__name__
    signature = inspect.signature(function)
    hints = typing.get_type_hints(function, include_extras=True)
    numbers = [argument for argument, hint in hints.items() if is_declared(hint)]

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}: {error}{_hint(kwargs, signature) or '.'}") from None
        for argument in numbers:
            if argument in bound.arguments:
                given = bound.arguments[argument]
                bound.arguments[argument] = as_number(name, argument, given, hints[argument])
        try:
            return function(*bound.args, **bound.kwargs)
        except (MismatchError, WrongKindError) as error:
            raise explained(name, error) from None

    return call


def _hint(kwargs: dict[str, Any], signature: inspect.Signature) -> str:
    """Return what to do about arguments that an operator does not take."""
    if "out" in kwargs:
        return "; results are returned, the new weight first and then the states."
    unknown = next((key for key in kwargs if key not in signature.parameters), None)
    return "" if unknown is None else nearest(unknown, signature.parameters)


def limit(bound: Any) -> Any:
    """Return a bound as algorithms take it: None where the number is known to limit nothing."""
    return None if isinstance(bound, float) and bound <= 0 else bound


def scalar(name: str, number: Any) -> jax.Array:
    """Return a number as a scalar array; it may come as an array of one element."""
    if not isinstance(number, (int, float)) and not hasattr(number, "dtype"):
        raise WrongKindError(f"{name} must be a number or an array, got {number!r}.")
    if np.size(number) != 1:
        raise MismatchError(f"{name} must be one number, got shape {np.shape(number)}.")
    return jnp.reshape(jnp.asarray(number, float), ())


def rates_of(opt: OptimizerDef, lr: Any, wd: Any, t: Any) -> Any:
    """Return the rates of update `t`, from Python's numbers on the host, else traced."""
    if type(t) is int or isinstance(t, np.integer):
        if t < 1:
            raise MismatchError(f"t must be 1 or more, got {t}.")
        t = int(t)
    elif not hasattr(t, "dtype") or not jnp.issubdtype(t.dtype, jnp.integer):
        raise WrongKindError(f"t must be an integer, the count of the update from 1, got {t!r}.")
    numbers = opt._with(learning_rate=None)
    if isinstance(t, int) and all(type(x) is float for x in jax.tree.leaves((numbers, lr, wd))):
        return numbers.rates(lr, wd, t)
    numbers, lr = jax.tree.map(lambda x: jnp.asarray(x, float), (numbers, lr))
    return numbers.rates(lr, wd, jnp.asarray(t))


class _EachRates(NamedTuple):
    """The rates of weights none of which shares its arrays with another."""

    rates: Sequence[Any]

    def of(self, members: Sequence[int], dtype: Any) -> tuple[Any, int | None]:
        """Return the sealed rates of one weight."""
        del dtype
        return self.rates[members[0]], None


@functools.partial(jax.jit, static_argnames=("structure", "whole"))
def _advanced(
    structure: Any, numbers: Any, whole: bool, weights: Any, grads: Any, slots: Any, masters: Any
) -> Any:
    opt, rates = put_together(structure, numbers)
    tree = Tree(range(len(weights)), weights, jax.tree.structure(weights), whole)
    layout = Layout(tuple((number,) for number in range(len(weights))))
    packed = layout.pack(slots), layout.pack(masters)
    given = Given(grads, lenient=True)
    opened(opt)._check_weights(tree, *packed, given)
    new, *after = advance(opt, _EachRates(rates), tree, *packed, given, ROW_RULES.get(type(opt)))
    return new, *(part.unpack() for part in after)


def _run(
    opt: OptimizerDef, rates: Any, whole: bool, weights: Any, grads: Any, slots: Any, masters: Any
) -> Any:
    for number, grad in enumerate(grads):
        if grad is None:
            which = f"grads[{number}]" if whole else "grad"
            raise WrongKindError(f"{which} must be an array, got NoneType.")
    bare = opt._with(learning_rate=None, wd=None)
    # A decay of 0 is structure, as in a step; a rate of 0 is a number like others.
    rates = [one._replace(wd=sealed(one.wd)) if hasattr(one, "wd") else one for one in rates]
    structure, numbers = taken_apart((bare, rates))
    try:
        return _advanced(structure, numbers, whole, weights, grads, slots, masters)
    except (MismatchError, WrongKindError):
        raise
    except Exception:
        wrong = unusable(False, weight=weights, grad=grads, state=(slots, masters))
        if wrong is None:
            raise
        raise wrong from None


def updated(
    opt: OptimizerDef,
    rates: Any,
    weight: Any,
    grad: Any,
    kind: Callable[..., Any] = tuple,
    *states: Any,
    master: Any = None,
) -> Any:
    """Return the new weight, then the new slots, then the new master, as far as there are any.

    Args:
        opt: an algorithm, whose numbers are checked.
        rates: of this update.
        weight: as it is stored.
        grad: its gradient.
        kind: makes the slots of the algorithm of the states.
        states: of the weight, in the order of the slots.
        master: the float32 weight behind a half-precision one.
    """
    given = [weight], [grad], [kind(*states)], [master]
    news, slots, masters = _run(opt, [rates], False, *given)
    more = (*slots[0], *(() if master is None else masters))
    return (*news, *more) if more else news[0]


def numbers(name: str, given: Any, count: int) -> list[Any]:
    """Return a number for each of several weights, from a sequence or a vector."""
    check_counts(count, **{name: given})
    each = list(given)
    for number in each:
        known = isinstance(number, (int, float, np.number)) and not isinstance(number, bool)
        if not known and np.shape(number) != ():
            raise MismatchError(f"{name} must hold numbers, got one of shape {np.shape(number)}.")
        if not known and not hasattr(number, "dtype"):
            raise WrongKindError(f"{name} must hold real numbers, got {number!r}.")
    return [number if isinstance(number, jax.Array) else float(number) for number in each]


def check_counts(count: int, **given: Any) -> None:
    """Raise unless every list has an item for each of the weights."""
    for name, items in given.items():
        size = len(items) if hasattr(items, "__len__") else None
        if size != count:
            was = repr(items) if size is None else size
            raise MismatchError(f"{name} must have {count} items, one a weight, got {was}.")


def columns(data: Sequence[Any], width: int, num_weights: int) -> list[Sequence[Any]]:
    """Return the lists of arrays that come weight by weight, as weight, gradient, and so on."""
    if len(data) != width * num_weights:
        raise MismatchError(
            f"data must hold {width} arrays for each of num_weights={num_weights} weights, "
            f"got {len(data)} arrays."
        )
    return [data[n::width] for n in range(width)]


def updated_lists(
    opt: OptimizerDef,
    rates: Sequence[Any],
    weights: Sequence[Any],
    grads: Sequence[Any],
    slots: Sequence[Any] | None = None,
    masters: Sequence[Any] | None = None,
) -> Any:
    """Return lists of the new weights, of each new slot, and of the new masters.

    Args:
        opt: an algorithm, whose numbers are checked.
        rates: of every weight.
        weights: as they are stored.
        grads: their gradients.
        slots: a NamedTuple of the algorithm for each, None where the algorithm has none.
        masters: the float32 weights behind half-precision ones, or None.
    """
    count = len(weights)
    given = [
        list(weights),
        list(grads),
        list(slots or [()] * count),
        list(masters or [None] * count),
    ]
    news, new_slots, new_masters = _run(opt, list(rates), True, *given)
    new = [news, *([] if slots is None else map(list, zip(*new_slots, strict=True)))]
    new += [] if masters is None else [new_masters]
    return tuple(new) if len(new) > 1 else new[0]
