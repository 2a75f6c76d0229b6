"""Follows tables through a traced function, and finds every row that is read of them.

The function is evaluated operation by operation. A table stands in it as a `Table`, which only a
lookup of rows may take apart; what a lookup gives can be perturbed, so that the derivative with
respect to the perturbation is the gradient of the rows.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

__all__ = ["Lookup", "Lookups", "Table", "evaluate"]

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
        """Those of the next lookups, None where nothing is perturbed."""
        if self._perturbations is None:
            return None
        return list(itertools.islice(self._perturbations, count))

    def perturbed(self, table: Table, indices: Any, rows: Any) -> Any:
        """Notes a lookup and returns its rows, perturbed."""
        self.found.append(Lookup(table.number, indices, rows))
        perturbation = self.next_perturbations(1)
        return rows if perturbation is None else rows + perturbation[0]


def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], lookups: Lookups) -> list[Any]:
    """Evaluates a traced function, some of whose arguments are tables.

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
    """Evaluates an operation that a table goes into."""
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
    """How to evaluate a gather, if whole rows are what it reads."""
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
    """Evaluates a scan whose body looks up rows of tables that it closes over."""
    params = eqn.params
    consts, carried = params["num_consts"], params["num_consts"] + params["num_carry"]
    for value in inputs[consts:]:
        if isinstance(value, Table):
            raise ValueError(
                f"value_and_row_grad: table {value.name!r} must be closed over by a scan, got it "
                f"as carry or as what is scanned{_place(eqn)}."
            )
    body, numbers = params["jaxpr"], list[int]()

    def looked_up(carry: Any, slices: Any) -> Any:
        xs, perturbations = slices
        inner = Lookups(perturbations)
        outputs = evaluate(body.jaxpr, body.consts, [*inputs[:consts], *carry, *xs], inner)
        numbers[:] = [lookup.number for lookup in inner.found]
        split = params["num_carry"]
        return outputs[:split], (outputs[split:], [lookup[1:] for lookup in inner.found])

    how = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, xs = inputs[consts:carried], inputs[carried:]
    shapes = jax.eval_shape(lambda: lax.scan(looked_up, carry, (xs, None), **how))[1][1]
    perturbations = lookups.next_perturbations(len(shapes))
    carry, (ys, found) = lax.scan(looked_up, carry, (xs, perturbations), **how)
    for number, (indices, rows) in zip(numbers, found, strict=True):
        lookups.found.append(Lookup(number, indices, rows))
    return [*carry, *ys]


def _place(eqn: Any) -> str:
    """Where in the user's code an operation stands."""
    traceback = eqn.source_info.traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_NOT_THE_USERS):
            return f" at {frame.file_name}:{frame.line_num}"
    return ""
