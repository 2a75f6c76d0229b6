"""gluon.Trainer: an optimizer, a tree of weights and their states, updated in one call."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxmxopt._core.algorithm import HALF
from jaxmxopt._core.config import Real, as_number
from jaxmxopt._core.copies import moved, private
from jaxmxopt._core.definition import Definition
from jaxmxopt._core.loss_scale import DynamicLossScaler, LossScale, all_finite
from jaxmxopt._core.names import flatten_with_names
from jaxmxopt._core.numeric import compute_dtype
from jaxmxopt._core.overriding import warn_caller
from jaxmxopt._core.programs import precise
from jaxmxopt._core.state import MasterState, State
from jaxmxopt._files.files import replacing
from jaxmxopt._files.objects import opened
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.saved_states import adopted, dumped, loaded
from jaxmxopt._stateful.updater import device_id, placed
from jaxmxopt._stateful.updates import (
    TreeStates,
    adds_up,
    check_pairs,
    has_masters,
    leaves_of,
    multiplied,
    scales_apart,
    updates_of,
)

__all__ = [
    "Trainer",
    "checked",
    "in_their_places",
    "paths_by_number",
    "rename",
]

Tree = TypeVar("Tree")
Path = str | os.PathLike[str]

# Stores of MXNet's that mean nothing on one process.
_LOCAL_STORES = (None, "local", "device", "nccl")


class Trainer:
    """Updates a tree of weights that it owns, with an optimizer that counts on the host.

    The index of a weight is its path, joined by `/`: `"decoder/0/kernel"`. It is the key in the
    optimizer's multipliers, counts and `param_dict`. As with gluon every weight decays unless
    something says otherwise: `trainer.optimizer.set_wd_mult({"*/bias": 0.0})`.

    The weights are copied at first. Every step reuses the memory of the weights before it: what
    `params` or `step` returned earlier is dead then.

    A subclass may override `_allreduce_grads(grads)`, which `step` calls first and which returns
    the gradients to go on with; and read and set `_scale`, the `rescale_grad` before it is divided
    by the batch size, `_params`, the list of weights, and `_optimizer`.

    Args:
        params: any pytree of floating arrays.
        optimizer: the name of an optimizer, an Optimizer, or a definition.
        optimizer_params: its arguments, as a mapping, where `optimizer` is a name or a definition.
        kvstore: gluon's, without effect: None, `"local"`, `"device"` or `"nccl"`.
        compression_params: gluon's: None.
        update_on_kvstore: gluon's, without effect: None, False or True.
        loss_scaler: for float16. Multiply the loss by `loss_scale` before it is differentiated;
            `step` divides the gradients by it, and leaves everything as it is where they are not
            finite.

    Raises:
        ValueError: two weights have the same path; or `kvstore` or `compression_params` ask for
            what is not done here.
        TypeError: a leaf of params is not a floating array, or arguments came with an Optimizer.

    Warns:
        UserWarning: a key of a multiplier is of no weight.

    Example:
        >>> import jax.numpy as jnp, jaxmxopt as mxopt
        >>> trainer = mxopt.Trainer({"w": jnp.ones(2)}, "sgd", {"learning_rate": 0.5})
        >>> trainer.step({"w": jnp.array([2.0, 4.0])}, batch_size=2)
        {'w': Array([0.5, 0. ], dtype=float32)}
    """

    def __init__(
        self,
        params: Any,
        optimizer: str | Optimizer | Definition,
        optimizer_params: Mapping[str, Any] | None = None,
        kvstore: Any = "device",
        compression_params: Mapping[str, Any] | None = None,
        update_on_kvstore: bool | None = None,
        *,
        loss_scaler: DynamicLossScaler | None = None,
    ) -> None:
        if not isinstance(optimizer_params, Mapping | None):
            raise TypeError(
                "Trainer: optimizer_params must be a mapping such as {'learning_rate': 0.1}, "
                f"got {optimizer_params!r}."
            )
        _check_store(kvstore, compression_params, update_on_kvstore)
        self._optimizer = Optimizer.create_optimizer(optimizer, **(optimizer_params or {}))
        self._scale = self._optimizer.rescale_grad
        self._scaling = _LossScaling(loss_scaler)
        try:
            self._names, weights, self._tree = flatten_with_names(params)
        except ValueError as error:
            raise ValueError(f"Trainer: {error}") from None
        shapes = [getattr(weight, "shape", ()) for weight in weights]
        self._shapes = dict(zip(self._names, shapes, strict=True))
        self._params = weights
        self._look_for_names("Trainer")
        run = updates_of(self._optimizer)
        self._states = run.first(self._optimizer, self._names, weights, params)
        self._params = [jnp.array(weight, copy=True) for weight in weights]

    # Reading.

    @property
    def params(self) -> Any:
        """The weights as they stand, a tree like the one given.

        Each call makes the tree anew: what is put into it does not reach the Trainer. A whole tree
        can be set, like the one given; masters follow, and the rest of the states stays.
        """
        return jax.tree.unflatten(self._tree, self._params)

    @params.setter
    def params(self, params: Any) -> None:
        """Go on with copies of other weights; of what the optimizer remembers, masters follow.

        Raises:
            ValueError: they are not like the weights in names, shapes and dtypes.
        """
        named = dict(zip(*flatten_with_names(params)[:2], strict=True))
        wanted = {n: (w.shape, w.dtype) for n, w in zip(self._names, self._params, strict=True)}
        given = {n: (jnp.shape(w), jnp.result_type(w)) for n, w in named.items()}
        for name in [*wanted, *given]:
            if given.get(name) != wanted.get(name):
                raise ValueError(
                    f"Trainer.params({name!r}): a weight must have shape and dtype "
                    f"{wanted.get(name)}, got {given.get(name)}."
                )
        # Another container may have the same names in another order.
        weights = [named[name] for name in self._names]
        if not self._states.whole:
            pairs = zip(self.states.values(), weights, strict=True)
            self._keep([_of_weight(*pair) for pair in pairs])
        elif has_masters(self.params, self.states[""]):
            raise ValueError(
                "Trainer.params: weights with masters cannot be set beside a transformation of "
                "optax; make another Trainer."
            )
        self._params = [jnp.array(weight, copy=True) for weight in weights]

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, for its counts, multipliers and hyperparameters."""
        return self._optimizer

    @property
    def states(self) -> dict[str, Any]:
        """State of each weight, by path.

        Where a transformation of optax is inside, it is one `State` of the whole tree, under `""`.
        """
        return self._states.by_name()

    @property
    def learning_rate(self) -> float:
        """The learning rate as it stands, before multipliers."""
        return self._optimizer.learning_rate

    @property
    def loss_scale(self) -> jax.Array:
        """The factor of the loss in this step, a float32 scalar; 1 without a `loss_scaler`."""
        return self._scaling.state.loss_scale

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate.

        Raises:
            UserWarning: there is a scheduler, which decides.
        """
        self._optimizer.set_learning_rate(lr)

    def _look_for_names(self, call: str) -> None:
        """Warn of multipliers of no weight."""
        for message in self._optimizer._without_weight(self._shapes):
            warn_caller(f"{call}: {message}")
        self._looked_at = self._tables()

    def _tables(self) -> tuple[Any, Any]:
        """Return the multipliers as they are, to be told from others set later."""
        optimizer = self._optimizer
        return getattr(optimizer, "lr_mult", None), getattr(optimizer, "wd_mult", None)

    # Updates.

    def step(self, grads: Any, batch_size: float, ignore_stale_grad: bool = False) -> Any:
        """Update all weights in one compiled call.

        Args:
            grads: a tree like the weights, summed over a batch; a leaf may be a `RowSparse`. None
                stands for a weight that the loss did not reach.
            batch_size: the gradients are divided by it; 1 where the loss is a mean already.
            ignore_stale_grad: leave weights whose gradient is None as they are, their counts too.
                Refused where the optimizer looks at all weights together.

        Returns:
            The new weights, as `params`.

        Raises:
            ValueError: gradients do not fit; the message has the path. Nothing has changed then,
                nor with the others.
            TypeError: a gradient is not a floating array.
            UserWarning: a gradient is None and `ignore_stale_grad` is False.
        """
        return self._update(self._reduced(grads), batch_size, ignore_stale_grad, "Trainer.step")

    def allreduce_grads(self, grads: Any = None) -> Any:
        """Do nothing: one process has no gradients of others to add.

        `jax.jit` adds up what sharded batches give. It is for programs that call it between
        `backward` and `update`.

        Returns:
            The gradients as given, or what a subclass makes of them in `_allreduce_grads`.
        """
        return self._reduced(grads)

    def _reduced(self, grads: Any) -> Any:
        """Return what `_allreduce_grads` makes of the gradients, which it must return."""
        reduced = self._allreduce_grads(grads)
        if reduced is None and grads is not None:
            raise TypeError(
                f"{type(self).__name__}._allreduce_grads: must return the gradients, as arrays do "
                "not change in place, got None."
            )
        return reduced

    def _allreduce_grads(self, grads: Any) -> Any:
        """Return the gradients to go on with."""
        return grads

    def update(self, grads: Any, batch_size: float, ignore_stale_grad: bool = False) -> Any:
        """Do what `step` does, without `allreduce_grads`."""
        return self._update(grads, batch_size, ignore_stale_grad, "Trainer.update")

    def _update(self, grads: Any, batch_size: Any, ignore_stale_grad: bool, call: str) -> Any:
        batch_size = as_number(call, "batch_size", batch_size, Real)
        if jnp.ndim(batch_size) != 0 or not batch_size > 0:
            raise ValueError(f"{call}: batch_size must be above 0, got {batch_size!r}.")
        leaves = leaves_of(call, self._tree, self._names, grads)
        tables = zip(self._tables(), self._looked_at, strict=True)
        if any(now is not then and now != then for now, then in tables):
            self._look_for_names(call)
        definition = self._optimizer._definition
        for name, weight, leaf in zip(self._names, self._params, leaves, strict=True):
            if leaf is None and not ignore_stale_grad:
                raise UserWarning(
                    f"{call}({name!r}): grad must be an array, got None; ignore_stale_grad=True "
                    "leaves such weights as they are."
                )
            known = leaf is None or hasattr(leaf, "dtype")
            if not known and definition._reads(name, weight):
                kind = type(leaf).__name__
                raise TypeError(f"{call}({name!r}): grad must be an array, got {kind}.")
        optimizer = self._optimizer
        run = updates_of(optimizer)
        leaves = run.filled(private(leaves))
        factor = 1 / batch_size / self._scaling.divisor
        finite, following = self._scaling.judged(leaves, self._params, self._scale * factor)
        if not finite:
            # A step that is skipped refuses what another would.
            check_pairs(call, self._names, self._params, leaves)
            self._scaling.state = following
            return self.params
        before = optimizer.rescale_grad
        if scales_apart(optimizer):
            if adds_up(optimizer):
                # The factor of the last call would be that of all gradients before.
                optimizer.rescale_grad = self._scale
            elif before:
                factor *= self._scale / before
            leaves = multiplied(leaves, moved(precise(factor), next(iter(self._params), None)))
        else:
            optimizer.rescale_grad = self._scale / batch_size / self._scaling.divisor
        try:
            if self._names:
                optimizer._set_current_context(device_id(self._params[0]))
            given = self._tree, self._params, leaves, self._states
            self._params, self._states = updates_of(optimizer).step(optimizer, call, *given)
        except BaseException:
            optimizer.rescale_grad = before
            raise
        self._scaling.state = following
        return self.params

    # States.

    def _keep(self, states: Sequence[Any]) -> None:
        """Take over a state for each weight."""
        run = updates_of(self._optimizer)
        self._states = run.laid_out(self._optimizer, self._names, self._params, states)

    def save_states(self, fname: Path) -> None:
        """Write the states, the loss scale and the optimizer, save its `param_dict`, to a file.

        The file appears whole or not at all; the weights are not in it.

        Raises:
            OSError: the file cannot be written.
        """
        call = f"Trainer.save_states({os.fspath(fname)!r})"
        data = self._dump(call)
        with replacing(fname) as file:
            file.write(data)

    def _dump(self, call: str) -> bytes:
        return dumped(call, self._optimizer, self._kept(), True, more=self._scaling.kept)

    def _kept(self) -> dict[str, Any]:
        """Return what goes into a file: the states by path, or the leaves of that of the tree."""
        if not self._states.whole:
            return self.states
        names, leaves, _ = flatten_with_names(self.states[""])
        return dict(zip(names, leaves, strict=True))

    def load_states(self, fname: Path, names: Sequence[str] | None = None) -> None:
        """Go on from a file that `save_states` wrote, or gluon's Trainer in MXNet.

        Args:
            fname: of the file.
            names: for a file of MXNet's, in which weights have numbers: the paths of the weights
                in the order of gluon's parameters, `sorted(net.collect_params())`, those that do
                not learn under any other name. By default the order of the leaves of `params`.

        Raises:
            ValueError: the file is damaged or of something else, or `names` lack a weight or are
                for a file that has names. Nothing has changed then.
            OSError: the file cannot be read.

        Warns:
            UserWarning: weights of one shape, in a tree that gluon has not, are told by nothing
                but the order of its leaves.
        """
        call = f"Trainer.load_states({os.fspath(fname)!r})"
        with open(fname, "rb") as file:
            self._load(call, file.read(), names)

    def _load(self, call: str, data: bytes, names: Sequence[str] | None = None) -> None:
        current, whole = self._kept(), self._states.whole
        found = loaded(call, data, self._optimizer, current)
        made, states = found.optimizer, found.states
        numbers = paths_by_number(call, states, self._names, self._params, names)
        if numbers:
            states = {numbers.get(index, index): state for index, state in states.items()}
            rename(made, numbers)
        in_place = in_their_places(call, states, current, whole=whole)
        if whole:
            leaves, tree = jax.tree.flatten(self.states[""])
            pairs = zip(in_place.values(), leaves, strict=True)
            kept = [tree.unflatten([placed(leaf, old) for leaf, old in pairs])]
        else:
            pairs = zip(in_place.items(), self._params, strict=True)
            kept = [
                placed(checked(call, name, weight, state, current[name]), weight)
                for (name, state), weight in pairs
            ]
        try:
            scale = self._scaling.taken(found.more)
        except ValueError as error:
            raise ValueError(f"{call}: {error}") from None
        self._optimizer = adopted(self._optimizer, made)
        if whole:
            self._states = TreeStates.of_whole(self._names, kept[0])
        else:
            self._keep(kept)
        self._scaling.state = scale
        if found.more is not None and self._scaling.scaler is None:
            warn_caller(f"{call}: the file's loss scale is left out, as there is no loss_scaler.")

    def __repr__(self) -> str:
        return f"Trainer({len(self._names)} weights, {self._optimizer!r})"


def _of_weight(state: Any, weight: Any) -> Any:
    """Return a state whose master, if it has one, is that of another weight."""
    if not isinstance(state, (MasterState, State)) or state.master is None:
        return state
    return state._replace(master=jnp.asarray(weight).astype(state.master.dtype))


def _check_store(kvstore: Any, compression_params: Any, update_on_kvstore: Any) -> None:
    """Raise ValueError for what gluon's key-value stores do and nothing does here."""
    if not isinstance(kvstore, str | None):
        kvstore = getattr(kvstore, "type", kvstore)
    if kvstore not in _LOCAL_STORES:
        raise ValueError(
            f"Trainer: kvstore must be one of {', '.join(map(repr, _LOCAL_STORES))}, got "
            f"{kvstore!r}. Over several processes call jax.distributed.initialize() and shard the "
            "batch: jax.jit then adds up the gradients."
        )
    if compression_params:
        raise ValueError(
            f"Trainer: compression_params must be None, got {compression_params!r}. Cast the "
            "gradients before they are added up, or leave it out."
        )
    if update_on_kvstore not in (None, False, True):
        raise ValueError(
            f"Trainer: update_on_kvstore must be None, False or True, got {update_on_kvstore!r}."
        )


class _LossScaling:
    """A loss scaler and its state; the scaler None scales by 1 and lets every step count."""

    def __init__(self, scaler: DynamicLossScaler | None) -> None:
        if scaler is not None and not isinstance(scaler, DynamicLossScaler):
            raise TypeError(f"Trainer: loss_scaler must be a DynamicLossScaler, got {scaler!r}.")
        self.scaler = scaler
        # Its numbers are the same in every step.
        self._on_device = jax.device_put(scaler)
        self.state = (scaler or DynamicLossScaler(init_scale=1.0)).init()

    def judged(self, grads: Any, weights: Any, factor: float) -> tuple[bool, LossScale]:
        """Return True if gradients are finite as they are applied, and the state of the next step.

        Args:
            grads: of each weight, or None.
            weights: whose arithmetic the gradients are rounded to.
            factor: what the gradients are multiplied by.
        """
        if self.scaler is None:
            return True, self.state
        dtypes = tuple(compute_dtype(weight.dtype) for weight in weights)
        number = moved(precise(factor), next(iter(weights), None))
        finite, following = _judged(self._on_device, self.state, grads, number, dtypes)
        return bool(jax.device_get(finite)), following

    @property
    def divisor(self) -> float:
        """The number that the gradients of this step are to be divided by."""
        return 1.0 if self.scaler is None else float(jax.device_get(self.state.loss_scale))

    @property
    def kept(self) -> LossScale | None:
        """The state for a file."""
        return None if self.scaler is None else self.state

    def taken(self, found: Any) -> LossScale:
        """Return the state to go on with, given that of a file, or raise ValueError."""
        if found is None or self.scaler is None:
            return self.state
        if not isinstance(found, LossScale) or _forms(found) != _forms(self.state):
            raise ValueError(f"the file is damaged: its loss scale is {found!r}.")
        return found


@functools.partial(jax.jit, static_argnums=4)
def _judged(
    scaler: DynamicLossScaler, state: LossScale, grads: Any, factor: Any, dtypes: tuple[Any, ...]
) -> Any:
    pairs = zip(grads, dtypes, strict=True)
    applied = [None if g is None else multiplied(g.astype(dtype), factor) for g, dtype in pairs]
    finite = all_finite(applied)
    return finite, scaler.update(state, finite)


def _forms(state: LossScale) -> list[Any]:
    return [(getattr(leaf, "shape", None), getattr(leaf, "dtype", None)) for leaf in state]


def paths_by_number(
    call: str,
    states: Mapping[Any, Any],
    paths: Sequence[str],
    weights: Sequence[Any],
    names: Sequence[str] | None,
) -> dict[Any, str]:
    """Return the paths of the weights that a file of MXNet's has numbers for.

    Args:
        call: for errors.
        states: from the file, by index.
        paths: of the weights.
        weights: in the same order.
        names: what the numbers mean, if somebody has said it.
    """
    known = sorted(index for index in states if isinstance(index, int))
    if names is not None:
        return _named(call, known, paths, list(names))
    nested = any("/" in path or path.isdigit() for path in paths)
    if known and nested and len({weight.shape for weight in weights}) < len(weights):
        warn_caller(
            f"{call}: the file has numbers, which go by the order of the leaves of params: "
            "weights of one shape may get each other's states. names= says gluon's order."
        )
    if len(known) == len(paths):
        # Weights that do not learn have numbers too, but no states.
        return dict(zip(known, paths, strict=True))
    return {index: paths[index] for index in known if 0 <= index < len(paths)}


def _named(
    call: str, known: Sequence[int], paths: Sequence[str], names: Sequence[str]
) -> dict[Any, str]:
    if not known:
        raise ValueError(f"{call}: names must be left out, as the file has names itself.")
    for path in paths:
        if (count := names.count(path)) != 1:
            raise ValueError(
                f"{call}: names must hold every weight once, got {path!r} {count} times."
            )
    return {number: name for number, name in enumerate(names) if name in paths}


def in_their_places(
    call: str, states: Mapping[Any, Any], current: Mapping[str, Any], *, whole: bool
) -> dict[str, Any]:
    """Return the states in the order of those of now, which stay where a file has none.

    Raises:
        ValueError: not all of the file has its place; or, in a file of ours and where the state is
            that of the whole tree, something is missing.
    """
    missing = next((name for name in current if name not in states), None)
    # In MXNet's files those that do not learn are missing, and weights have numbers.
    ours = all(name in current for name in states)
    if missing is not None and (whole or (states and ours)):
        raise ValueError(f"{call}: the file must hold all states, got none of {missing!r}.")
    further = [index for index in states if index not in current]
    if further:
        without = "" if missing is None else f", and none of {missing!r}"
        raise ValueError(
            f"{call}: the file must be of these weights, {len(current)} in number, got states of "
            f"{len(further)} more, the first {further[0]!r}{without}."
        )
    return {name: states.get(name, kept) for name, kept in current.items()}


def checked(call: str, name: str, weight: Any, state: Any, current: Any) -> Any:
    """Raise if a state from a file is of another weight."""
    if isinstance(state, MasterState) and weight.dtype not in HALF:
        raise ValueError(
            f"{call}: the state of {name!r} must be without a master, as its weight is of "
            f"{weight.dtype}, got one with a master."
        )
    if isinstance(current, MasterState) and not isinstance(state, MasterState):
        # What is squared or divided by is float32 without a master too.
        slots = [slot for slot in jax.tree.leaves(opened(state)) if hasattr(slot, "dtype")]
        if {slot.dtype for slot in slots if slot.shape} == {current.master.dtype}:
            raise ValueError(
                f"{call}: the state of {name!r} must be of {weight.dtype} or with a master, "
                f"got {current.master.dtype} without."
            )
    trees = opened(state), opened(current)
    given, expected = (jax.tree.map(lambda x: getattr(x, "shape", ()), tree) for tree in trees)
    same = jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    if same and given != expected:
        raise ValueError(f"{call}: the state of {name!r} must have shapes {expected}, got {given}.")
    return state


def rename(optimizer: Optimizer, names: Mapping[Any, str]) -> None:
    """Give the weights of an optimizer other indices."""

    def renamed(table: Mapping[Any, Any]) -> dict[Any, Any]:
        return {names.get(index, index): value for index, value in table.items()}

    counts, current = optimizer._all_index_update_counts, optimizer._index_update_count
    device = next((device for device, table in counts.items() if table is current), 0)
    optimizer._all_index_update_counts = {d: renamed(table) for d, table in counts.items()}
    optimizer._set_current_context(device)
    optimizer.idx2name = renamed(optimizer.idx2name)
    optimizer.lr_mult, optimizer.wd_mult = renamed(optimizer.lr_mult), renamed(optimizer.wd_mult)
