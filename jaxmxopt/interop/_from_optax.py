"""optax gradient transformations as definitions."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxmxopt._core.algorithm import HALF
from jaxmxopt._core.checks import WrongKindError, check_array, check_pair, check_rate
from jaxmxopt._core.config import Node, NonNegative, Real, Static
from jaxmxopt._core.definition import Definition, Maker
from jaxmxopt._core.engine import Given
from jaxmxopt._core.layout import Layout
from jaxmxopt._core.names import Tree
from jaxmxopt._core.slots import Like
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State, counted, indivisible, masters

__all__ = ["FromOptax", "OptaxSlots", "from_optax"]

Self = TypeVar("Self", bound="FromOptax")


@indivisible("a state of optax cannot be taken apart weight by weight")
class OptaxSlots(NamedTuple):
    """The state of a gradient transformation, as `state`: of one weight, or of a whole tree."""

    state: Any


class FromOptax(Definition):
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
        """Return a copy with some fields changed, checked like a new one.

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

    def _begin(self, tree: Tree, maker: Maker) -> State:
        masters: list[Any] = []
        for name, weight in zip(tree.names, tree.leaves, strict=True):
            check_array("weight", weight, name)
            half = maker.masters and self.multi_precision and weight.dtype in HALF
            like = Like(weight.shape, jnp.float32)
            masters.append(maker.slot(like.copy(), weight) if half else None)
        count = maker.slot(Like((), jnp.int32).full(self.begin_num_update, (), jnp.int32), None)
        slots = OptaxSlots(maker.others(self._first, tree))
        return State(count, slots, _packed(masters, tree))

    def _first(self, params: Any) -> Any:
        """Return the first state of `tx`."""

        def full(weight: Any) -> Any:
            half = self.multi_precision and weight.dtype in HALF
            return weight.astype(jnp.float32) if half else weight

        return self.tx.init(jax.tree.map(full, params))

    def _advance(self, tree: Tree, state: State, given: Given) -> tuple[list[Any], State]:
        if type(state.slots) is not OptaxSlots:
            raise WrongKindError(
                f"state is of another definition: slots must be OptaxSlots, got "
                f"{type(state.slots).__name__}."
            )
        known = masters(tree, state)
        full = [w if m is None else m for w, m in zip(tree.leaves, known, strict=True)]
        for name, weight, grad in zip(tree.names, tree.leaves, given.grads, strict=True):
            check_pair(weight, grad, name if tree.whole else None)
        scales = (self.rescale_grad, *given.factors)
        grads = [_scaled(grad, w, scales) for grad, w in zip(given.grads, full, strict=True)]
        count = counted(state.num_update)
        before = tree.like(full)
        updates, tx_state = self.tx.update(tree.like(grads), state.slots.state, before)
        rate = self.learning_rate
        if self.lr_scheduler is not None:
            rate = check_rate(self.lr_scheduler(count))

        def moved(weight: Any, update: Any) -> Any:
            if rate is not None:
                update = -lax.convert_element_type(rate, update.dtype) * update
            return (weight + update.astype(weight.dtype)).astype(weight.dtype)

        new = tree.structure.flatten_up_to(jax.tree.map(moved, before, updates))
        rounded = [w.astype(old.dtype) for w, old in zip(new, tree.leaves, strict=True)]
        kept = [None if m is None else w for m, w in zip(known, new, strict=True)]
        return rounded, State(count, OptaxSlots(tx_state), _packed(kept, tree))

    def _packed(self, tree: Tree, states: Sequence[State]) -> State:
        raise WrongKindError("states of optax cannot be put together from those of the weights.")

    def _for(self, index: Hashable, shape: Sequence[int]) -> tuple[Definition, Hashable]:
        del index, shape
        # All weights of one shape share what is compiled: nothing here goes by the index.
        return self, ""

    def _asked(self: Self, state: Any) -> Self:
        rate = check_rate(self.lr_scheduler(counted(state.num_update)))  # pyright: ignore[reportOptionalCall]
        return self._with(lr_scheduler=None, learning_rate=rate)


def _scaled(grad: Any, weight: Any, scales: Sequence[Any]) -> Any:
    grad = grad.astype(weight.dtype)
    if isinstance(grad, RowSparse):
        grad = grad.todense()
    for scale in scales:
        grad = grad * lax.convert_element_type(scale, grad.dtype)
    return grad


def _packed(masters: list[Any], tree: Tree) -> Any:
    """Return the masters as the state of a tree, or of one weight, has them."""
    if not tree.whole:
        return masters[0]
    groups = tuple((number,) for number in range(len(masters)))
    return Layout(groups, tuple(map(str, tree.names))).pack(masters)


def from_optax(
    tx: Any,
    learning_rate: float | jax.Array | None = None,
    *,
    lr_scheduler: Callable[[Any], Any] | None = None,
    rescale_grad: float = 1.0,
    begin_num_update: int = 0,
    multi_precision: bool = False,
) -> FromOptax:
    """Make a definition of an optax gradient transformation.

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
