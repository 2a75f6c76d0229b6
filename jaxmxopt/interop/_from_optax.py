"""optax gradient transformations as definitions."""

from collections.abc import Callable, Hashable
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.checks import WrongKindError, check_array, check_rate, explained
from jaxmxopt._core.config import Node, NonNegative, Real, Static
from jaxmxopt._core.definition import HALF
from jaxmxopt._core.exported import exportable
from jaxmxopt._core.layout import Layout, Packed
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.pure import WHOLE, Definition
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State
from jaxmxopt._wrappers.masters import full_weights, masters
from jaxmxopt._wrappers.tree import TreeDefinition, map_grads

__all__ = ["FromOptax", "OptaxSlots", "from_optax"]

Self = TypeVar("Self", bound="FromOptax")


@exportable
class OptaxSlots(NamedTuple):
    """The state of a gradient transformation, as `state`: of one weight, or of a whole tree."""

    state: Any

    def unpacked(self, state: State, params: Any) -> Any:
        """Refuses `State.unpack`: only the transformation knows what its state means."""
        del state, params
        raise TypeError("State.unpack: a state of optax cannot be taken apart weight by weight.")


class FromOptax(TreeDefinition):
    r"""An optax gradient transformation as a definition: see `from_optax`.

    .. math:: w = w + u \quad \text{or} \quad w = w - \eta u

    with the transformation's updates :math:`u`, where :math:`\eta` is the learning rate if there
    is one.

    Attributes:
        tx: the GradientTransformation; static.
        learning_rate: None where `tx` has one itself; else its updates have the sign of the
            gradient, as those of `optax.scale_by_adam`.
        lr_scheduler: any callable from an update count to a learning rate, in its place.
        rescale_grad: every gradient is multiplied by it first.
        begin_num_update: the count that states start from; the counts of `tx` start from 0.
        multi_precision: `tx` works on float32 masters of weights of fewer than 32 bits.

    Slots: `state`, that of `tx`. Under `update` it is of the one weight.
    """

    tx: Node[Any]
    learning_rate: NonNegative | None = None
    lr_scheduler: Node[Callable[[Any], Any] | None] = None
    rescale_grad: Real = 1.0
    begin_num_update: Static[int] = 0
    multi_precision: Static[bool] = False

    _slots_type: ClassVar[Any] = OptaxSlots
    _joint = True

    def __post_init__(self) -> None:
        super().__post_init__()
        functions = (getattr(self.tx, name, None) for name in ("init", "update"))
        if isinstance(self.tx, Definition) or not all(map(callable, functions)):
            raise TypeError(f"FromOptax: tx must be a GradientTransformation, got {self.tx!r}.")
        if self.lr_scheduler is not None and not callable(self.lr_scheduler):
            raise TypeError(f"FromOptax: lr_scheduler must be callable, got {self.lr_scheduler!r}.")
        if self.lr_scheduler is not None and self.learning_rate is not None:
            raise ValueError(
                f"FromOptax: learning_rate must be None beside lr_scheduler, "
                f"got {self.learning_rate!r}."
            )
        if self.begin_num_update < 0:
            raise ValueError(
                f"FromOptax: begin_num_update must be 0 or more, got {self.begin_num_update}."
            )

    def replace(self: Self, **changes: Any) -> Self:
        """Returns a copy with some fields changed, checked like a new one.

        Raises:
            ValueError: also where `tx` has a learning rate itself and one is given beside it: its
                updates would go the other way.
        """
        given = [
            name for name in ("learning_rate", "lr_scheduler") if changes.get(name) is not None
        ]
        if given and "tx" not in changes and self.learning_rate is None is self.lr_scheduler:
            raise ValueError(
                f"FromOptax: {given[0]} must be None, as tx has a learning rate itself, got "
                f"{changes[given[0]]!r}; make one by from_optax(tx, learning_rate), with a tx such "
                "as optax.scale_by_adam(), to change it."
            )
        return super().replace(**changes)

    def _create(self, call: str, index: Hashable, weight: Any, *, masters: bool) -> State:
        weight = _floating(f"FromOptax.{call}", index, weight)
        master = self._master(weight) if masters else None
        return self._first(weight if master is None else master, master)

    def _init(self, params: Any) -> State:
        names, weights, tree = flatten_with_names(params)
        weights = [_floating("FromOptax.init", n, w) for n, w in zip(names, weights, strict=True)]
        known = [self._master(weight) for weight in weights]
        full = [w if m is None else m for w, m in zip(weights, known, strict=True)]
        return self._first(tree.unflatten(full), _packed(known, names))

    def _only(self, index: Hashable) -> tuple[Definition, Hashable]:
        hash(index)
        # All weights of one shape share what is compiled: nothing here goes by the index.
        return self, ""

    def _master(self, weight: Any) -> Any:
        half = self.multi_precision and weight.dtype in HALF
        return weight.astype(jnp.float32) if half else None

    def _first(self, full: Any, master: Any) -> State:
        count = jnp.asarray(self.begin_num_update, jnp.int32)
        return State(count, OptaxSlots(self.tx.init(full)), master)

    def _advance(
        self, params: Any, grads: Any, state: State, ok: Any, index: Hashable
    ) -> tuple[Any, State]:
        if ok is None:
            return self._advanced(params, grads, state, index)
        return lax.cond(
            ok,
            lambda p, s: self._advanced(p, grads, s, index),
            lambda p, s: (p, s),
            params,
            state,
        )

    def _advanced(
        self, params: Any, grads: Any, state: State, index: Hashable
    ) -> tuple[Any, State]:
        if index is WHOLE:
            full = full_weights(params, state)
        else:
            full = params if state.master is None else state.master
        count = state.num_update + 1
        grads = map_grads(self._rescaled, grads, full)
        updates, tx_state = self.tx.update(grads, state.slots.state, full)
        rate = self.learning_rate
        if self.lr_scheduler is not None:
            rate = check_rate(self.lr_scheduler(count))

        def moved(weight: Any, update: Any) -> Any:
            if rate is not None:
                update = -lax.convert_element_type(rate, update.dtype) * update
            return (weight + update.astype(weight.dtype)).astype(weight.dtype)

        new = jax.tree.map(moved, full, updates)
        rounded = jax.tree.map(lambda new, old: new.astype(old.dtype), new, params)
        if index is not WHOLE:
            master = None if state.master is None else new
            return rounded, State(count, OptaxSlots(tx_state), master)
        known = masters(params, state)
        names, leaves, _ = flatten_with_names(new)
        kept = [leaf if name in known else None for name, leaf in zip(names, leaves, strict=True)]
        return rounded, State(count, OptaxSlots(tx_state), _packed(kept, names))

    def _rescaled(self, grad: Any, weight: Any) -> Any:
        grad = grad.astype(weight.dtype)
        if isinstance(grad, RowSparse):
            grad = grad.todense()
        return grad * lax.convert_element_type(self.rescale_grad, grad.dtype)

    def _scaled_by(self: Self, factor: Any) -> Self:
        return self._with(rescale_grad=self.rescale_grad * factor)

    def _pack(self, params: Any, states: Any) -> State:
        raise WrongKindError("states of optax cannot be put together from those of the weights.")


def from_optax(
    tx: Any,
    learning_rate: float | jax.Array | None = None,
    *,
    lr_scheduler: Callable[[Any], Any] | None = None,
    rescale_grad: float = 1.0,
    begin_num_update: int = 0,
    multi_precision: bool = False,
) -> FromOptax:
    """Makes a definition of an optax gradient transformation.

    It has `init` and `step`, `create_state` and `update`, and goes into `Optimizer`, `Updater`,
    `Trainer` and the wrappers. What looks at all weights at once, such as
    `optax.clip_by_global_norm`, does so in `step` and in a `Trainer`; under `update` it sees the
    one weight, and lists of weights are refused.

    Args:
        tx: any GradientTransformation that needs no extra arguments.
        learning_rate: None where `tx` has one itself, as `optax.adam(1e-3)`: its updates are added
            to the weights. Given, the updates of `tx` must have the sign of the gradient, as those
            of `optax.scale_by_adam()`: the weights move by minus the rate times them. Nothing
            checks which of the two a `tx` is.
        lr_scheduler: in its place, a callable from an update count to a learning rate. The first
            count is 1; schedules of optax begin at 0: `lambda t: schedule(t - 1)`.
        rescale_grad: every gradient is multiplied by it first.
        begin_num_update: the count that states start from.
        multi_precision: float32 masters for weights of fewer than 32 bits.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> opt, w = from_optax(optax.sgd(0.5)), jnp.array([1.0, 2.0])
        >>> w, state = opt.step(w, jnp.array([1.0, 1.0]), opt.init(w))
        >>> print(w, state.num_update)
        [0.5 1.5] 1
    """
    return FromOptax(
        tx=tx,
        learning_rate=learning_rate,
        lr_scheduler=lr_scheduler,
        rescale_grad=rescale_grad,
        begin_num_update=begin_num_update,
        multi_precision=multi_precision,
    )


def _floating(call: str, index: Hashable, weight: Any) -> Any:
    weight = jnp.asarray(weight) if isinstance(weight, float) else weight
    try:
        check_array("weight", weight)
    except WrongKindError as error:
        raise explained(call, error, index) from None
    return weight


def _packed(leaves: list[Any], names: list[str]) -> Packed:
    return Layout(tuple((number,) for number in range(len(leaves))), tuple(names)).pack(leaves)
