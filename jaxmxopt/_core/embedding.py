"""Gradients of a loss in which tables are looked up, without ever making the dense ones."""

import fnmatch
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from jaxmxopt._core.names import flatten_with_names
from jaxmxopt._core.sparse import RowSparse

__all__ = [
    "Lookup",
    "Lookups",
    "Table",
    "evaluate",
    "value_and_row_grad",
]

_CALLS = ("jit", "pjit", "closed_call", "core_call")
_NOT_THE_USERS = tuple(str(Path(file).parent) for file in (jax.__file__, __file__))


class Table:
    """A table on its way through a function.

    Attributes:
        number: which of the tables.
        name: for messages.
        array: the table.
        dtypes: what it was cast to since; its rows are cast after they are read.
    """

    def __init__(self, number: int, name: str, array: Any, dtypes: tuple[Any, ...] = ()) -> None:
        self.number = number
        self.name = name
        self.array = array
        self.dtypes = dtypes

    def cast(self, values: Any) -> Any:
        """Casts rows, or the whole table, as the table was cast."""
        for dtype in self.dtypes:
            values = lax.convert_element_type(values, dtype)
        return values


class Lookup(NamedTuple):
    """Rows read at one place: their indices and values, one behind another."""

    number: int
    indices: Any
    rows: Any


class Lookups:
    """The lookups of one evaluation, in order.

    Args:
        perturbations: what to add to the rows of each; None to add nothing.
    """

    def __init__(self, perturbations: Sequence[Any] | None = None) -> None:
        self.found: list[Lookup] = []
        self._perturbations = None if perturbations is None else iter(perturbations)

    def next_perturbations(self, count: int) -> list[Any] | None:
        """Return the perturbations of the next lookups, None where nothing is perturbed."""
        if self._perturbations is None:
            return None
        return list(itertools.islice(self._perturbations, count))

    def perturbed(self, table: Table, indices: Any, rows: Any) -> Any:
        """Note a lookup and returns its rows, perturbed."""
        self.found.append(Lookup(table.number, indices, rows))
        perturbation = self.next_perturbations(1)
        return rows if perturbation is None else rows + perturbation[0]


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], lookups: Lookups) -> list[Any]:
    """Evaluate a traced function, some of whose arguments are tables.

    Raises:
        ValueError: a table is used for something else than looking up rows.
    """
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if any(isinstance(value, Table) for value in inputs):
            outputs = _with_tables(eqn, inputs, lookups)
        else:
            with eqn.ctx.manager:
                bound = eqn.primitive.get_bind_params(eqn.params)
                # Up to jax 0.9 a pair: functions, which are arguments, and the parameters.
                functions, params = bound if isinstance(bound, tuple) else ((), bound)
                outputs = eqn.primitive.bind(*functions, *inputs, **params)
            outputs = outputs if eqn.primitive.multiple_results else [outputs]
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _with_tables(eqn: Any, inputs: list[Any], lookups: Lookups) -> Sequence[Any]:
    """Evaluate an operation that a table goes into."""
    name, table = eqn.primitive.name, inputs[0]
    if name in _CALLS:
        closed = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        return evaluate(closed.jaxpr, closed.consts, inputs, lookups)
    if name == "scan":
        return _scanned(eqn, inputs, lookups)
    if isinstance(table, Table) and not any(isinstance(value, Table) for value in inputs[1:]):
        if name == "convert_element_type":
            dtypes = (*table.dtypes, eqn.params["new_dtype"])
            return [Table(table.number, table.name, table.array, dtypes)]
        if name in ("copy", "pvary"):
            array = eqn.primitive.bind(table.array, **eqn.params)
            if eqn.primitive.multiple_results:
                (array,) = array
            return [Table(table.number, table.name, array, table.dtypes)]
        if name == "stop_gradient":
            return [lax.stop_gradient(table.cast(table.array))]
        if name == "gather" and (lookup := _gathered_rows(eqn, table, inputs[1])):
            return [lookup(lookups)]
        if name == "dynamic_slice" and eqn.params["slice_sizes"] == (1, *table.array.shape[1:]):
            return [_sliced_row(table, inputs[1], lookups)]
    culprit = next(value for value in inputs if isinstance(value, Table))
    raise ValueError(
        f"value_and_row_grad: table {culprit.name!r} must be used by looking up its rows alone, "
        f"outside branches and loops other than scan, got {name!r}{_place(eqn)}. Leave it out of "
        "tables: its gradient is then the ordinary one."
    )


def _gathered_rows(eqn: Any, table: Table, starts: Any) -> Callable[[Lookups], Any] | None:
    """Return a function that evaluates a gather of whole rows, None for another gather."""
    params = eqn.params
    numbers, mode = params["dimension_numbers"], params["mode"]
    first, *others = numbers.start_index_map or (None,)
    shape = table.array.shape
    filled = mode == lax.GatherScatterMode.FILL_OR_DROP
    if (
        tuple(params["slice_sizes"]) != (1, *shape[1:])
        or tuple(numbers.collapsed_slice_dims) not in ((), (0,))
        or numbers.operand_batching_dims
        or first != 0
        # Where a whole axis is read, any other start than 0 is clipped to it, but not if filled.
        or (others and filled)
    ):
        return None

    def evaluated(lookups: Lookups) -> Any:
        indices = starts[..., 0].reshape(-1)
        if mode == lax.GatherScatterMode.CLIP:
            indices = jnp.clip(indices, 0, shape[0] - 1)
        rows = eqn.primitive.bind(table.array, starts, **params)
        offset = list(numbers.offset_dims)
        order = [axis for axis in range(rows.ndim) if axis not in offset] + offset
        ordered = rows.transpose(order)
        flat = ordered.reshape(indices.shape[0], *shape[1:])
        flat = lookups.perturbed(table, indices, flat)
        back = sorted(range(rows.ndim), key=lambda axis: order[axis])
        return table.cast(flat.reshape(ordered.shape).transpose(back))

    return evaluated


def _sliced_row(table: Table, start: Any, lookups: Lookups) -> Any:
    """One row: what indexing with a scalar is traced to."""
    start = jnp.clip(start, 0, table.array.shape[0] - 1)
    row = lax.dynamic_slice_in_dim(table.array, start, 1)
    return table.cast(lookups.perturbed(table, start.reshape(1), row))


def _scanned(eqn: Any, inputs: list[Any], lookups: Lookups) -> Sequence[Any]:
    """Evaluate a scan whose body looks up rows of tables that it closes over."""
    params = eqn.params
    body, numbers = params["jaxpr"], list[int]()
    # Releases of JAX name the counts differently. What is scanned has one axis more outside.
    scanned, split = _with_more_axes(eqn.invars, body.in_avals), len(eqn.outvars)
    split -= _with_more_axes(eqn.outvars, body.out_avals)
    carried = len(inputs) - scanned
    consts = carried - split
    for value in inputs[consts:]:
        if isinstance(value, Table):
            raise ValueError(
                f"value_and_row_grad: table {value.name!r} must be closed over by a scan, got it "
                f"as carry or as what is scanned{_place(eqn)}."
            )

    def looked_up(carry: Any, slices: Any) -> Any:
        xs, perturbations = slices
        inner = Lookups(perturbations)
        outputs = evaluate(body.jaxpr, body.consts, [*inputs[:consts], *carry, *xs], inner)
        numbers[:] = [lookup.number for lookup in inner.found]
        return outputs[:split], (outputs[split:], [lookup[1:] for lookup in inner.found])

    how = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, xs = inputs[consts:carried], inputs[carried:]
    shapes = jax.eval_shape(lambda: lax.scan(looked_up, carry, (xs, None), **how))[1][1]
    perturbations = lookups.next_perturbations(len(shapes))
    carry, (ys, found) = lax.scan(looked_up, carry, (xs, perturbations), **how)
    for number, (indices, rows) in zip(numbers, found, strict=True):
        lookups.found.append(Lookup(number, indices, rows))
    return [*carry, *ys]


def _with_more_axes(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Return how many values of a scan have another number of axes in its body."""
    pairs = zip(outside, inside, strict=True)
    return sum(len(value.aval.shape) != len(aval.shape) for value, aval in pairs)


def _place(eqn: Any) -> str:
    """Where in the user's code an operation stands."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_NOT_THE_USERS):
            return f" at {frame.file_name}:{frame.line_num}"
    return ""


def value_and_row_grad(
    loss: Callable[..., Any], tables: str | Sequence[str], *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """`jax.value_and_grad` whose gradients of embedding tables are `RowSparse`.

    The loss is written as ever: `table[ids]`, `jnp.take(table, ids, axis=0)` or an embedding
    layer, as often as wanted, also under `vmap`, inside `scan` and through casts of the table.
    The gradient of a table holds one row for every row that was looked up, duplicates included,
    and no array of the table's size is made for it. Inside `jax.shard_map` it holds the rows of
    its own device.

    A table that is used for anything else, such as an output layer tied to it or a norm of it,
    has a dense gradient by nature. It is refused; left out of `tables` it gets that gradient.

    Args:
        loss: `loss(params, *args, **kwargs)` gives a real scalar, or with `has_aux` a pair of it
            and a pytree of arrays.
        tables: which leaves of `params` are tables: their paths, joined by `/`, or patterns such
            as `"*/embedding"`. What is a path stands for that leaf alone.
        has_aux: whether the loss gives a pair.

    Returns:
        A function of the arguments of `loss` that gives its value, or the pair, and a tree like
        `params` of gradients. Meant to be called inside `jax.jit`.

    Raises:
        ValueError: a table is used otherwise, or `tables` names no leaf.
        TypeError: `tables` holds no strings, or the loss gives what is no array.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmxopt as mxopt
        >>> params = {"table": jnp.ones((9, 2)), "scale": jnp.ones(())}
        >>> loss = lambda params, ids: params["scale"] * jnp.sum(params["table"][ids])
        >>> value, grads = mxopt.value_and_row_grad(loss, "table")(params, jnp.array([3, 5, 3]))
        >>> grads["table"], grads["scale"].item()
        (RowSparse(3 rows of (9, 2), float32), 6.0)
    """
    if not callable(loss):
        raise TypeError(f"value_and_row_grad: loss must be a function, got {loss!r}; it is first.")
    patterns = (tables,) if isinstance(tables, str) else tables
    if not isinstance(patterns, Sequence) or not all(isinstance(one, str) for one in patterns):
        raise TypeError(
            "value_and_row_grad: tables must be a path, a pattern or a list of them, "
            f"got {tables!r}."
        )

    def value_and_grad(params: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        names, leaves, tree = flatten_with_names(params)
        numbers = _chosen(patterns, names, leaves)
        dense = {n: leaf for n, leaf in enumerate(leaves) if n not in numbers}
        traced, shapes = jax.make_jaxpr(
            lambda leaves: loss(jax.tree.unflatten(tree, leaves), *args, **kwargs),
            return_shape=True,
        )(leaves)

        looked_up = list[int]()

        def evaluated(dense: Any, perturbations: Any) -> tuple[Any, Any]:
            lookups = Lookups(perturbations)
            inputs = [dense.get(n, Table(n, name, leaves[n])) for n, name in enumerate(names)]
            outputs = evaluate(traced.jaxpr, traced.consts, inputs, lookups)
            outputs = [out.cast(out.array) if isinstance(out, Table) else out for out in outputs]
            result = jax.tree.unflatten(jax.tree.structure(shapes), outputs)
            value, aux = result if has_aux else (result, None)
            looked_up[:] = [lookup.number for lookup in lookups.found]
            indices = [lookup.indices for lookup in lookups.found]
            return value, (aux, indices, [lookup.rows for lookup in lookups.found])

        shapes_of_rows = jax.eval_shape(lambda dense: evaluated(dense, None)[1][2], dense)
        perturbations = [jnp.zeros_like(rows) for rows in shapes_of_rows]
        (value, (aux, indices, _)), (grads, rows) = jax.value_and_grad(
            evaluated, argnums=(0, 1), has_aux=True
        )(dense, perturbations)
        for n in numbers:
            own = [place for place, number in enumerate(looked_up) if number == n]
            grads[n] = _gradient(leaves[n], [indices[i] for i in own], [rows[i] for i in own])
        grads = jax.tree.unflatten(tree, [grads[n] for n in range(len(leaves))])
        return ((value, aux) if has_aux else value), grads

    return value_and_grad


def _chosen(patterns: Sequence[str], names: Sequence[str], leaves: Sequence[Any]) -> list[int]:
    """Return the numbers of the leaves that are tables."""
    chosen: set[int] = set()
    for pattern in patterns:
        found = [n for n, name in enumerate(names) if name == pattern]
        found = found or [n for n, name in enumerate(names) if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise ValueError(
                f"value_and_row_grad: tables must name leaves of params, {list(names)}, "
                f"got {pattern!r}."
            )
        chosen.update(found)
    for n in chosen:
        shape, dtype = jnp.shape(leaves[n]), jnp.result_type(leaves[n])
        if not shape or not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"value_and_row_grad: table {names[n]!r} must be floating with a row axis, "
                f"got shape {shape} and dtype {dtype}."
            )
    return sorted(chosen)


def _gradient(table: Any, indices: Sequence[Any], rows: Sequence[Any]) -> RowSparse:
    """Return all lookups of one table, put together."""
    shape = tuple(table.shape)
    if not rows:
        empty = jnp.zeros((0, *shape[1:]), table.dtype)
        return RowSparse._unchecked(jnp.zeros(0, jnp.int32), empty, shape)
    indices = [part.reshape(-1) for part in indices]
    if len({part.dtype for part in indices}) > 1:
        indices = [part.astype(jnp.int32) for part in indices]
    values = jnp.concatenate([part.reshape(-1, *shape[1:]) for part in rows])
    return RowSparse._unchecked(jnp.concatenate(indices), values, shape)
