"""gluon.Trainer: an optimizer, a tree of weights and their states, updated in one call."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxmxopt._core.checks import MismatchError, explained
from jaxmxopt._core.compiled import flatten_grads, slots_and_master, with_master
from jaxmxopt._core.config import Real, as_number
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.gradients import multiplied
from jaxmxopt._core.layout import Layout
from jaxmxopt._core.loss_scale import DynamicLossScaler
from jaxmxopt._core.overriding import warn_caller
from jaxmxopt._core.paths import flatten_with_names
from jaxmxopt._core.state import MasterState, State
from jaxmxopt._files.atomic import replacing
from jaxmxopt._stateful.loss_scaling import LossScaling
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.saved_states import adopted, dumped, loaded
from jaxmxopt._stateful.trainer_file import checked, in_their_places, paths_by_number, rename
from jaxmxopt._stateful.tree_optimizer import TreeOptimizer
from jaxmxopt._stateful.updater import device_id, placed
from jaxmxopt._wrappers.masters import masters

__all__ = ["Trainer"]

Tree = TypeVar("Tree")
Path = str | os.PathLike[str]

_multiplied = jax.jit(multiplied)


class Trainer:
    """Updates a tree of weights that it owns, with an optimizer that counts on the host.

    The index of a weight is its path, joined by `/`: `"decoder/0/kernel"`. It is the key in the
    optimizer's multipliers, counts and `param_dict`. As with gluon every weight decays unless
    something says otherwise: `trainer.optimizer.set_wd_mult({"*/bias": 0.0})`.

    The weights are copied at first. Every step reuses the memory of the weights before it: what
    `params` or `step` returned earlier is dead then.

    Args:
        params: any pytree of floating arrays.
        optimizer: the name of an optimizer, an Optimizer, or a definition.
        optimizer_params: its arguments, as a mapping, where `optimizer` is a name or a definition.
        loss_scaler: for float16. Multiply the loss by `loss_scale` before it is differentiated;
            `step` divides the gradients by it, and leaves everything as it is where they are not
            finite.

    Raises:
        ValueError: two weights have the same path.
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
        optimizer: str | Optimizer | OptimizerDef,
        optimizer_params: Mapping[str, Any] | None = None,
        loss_scaler: DynamicLossScaler | None = None,
    ) -> None:
        if not isinstance(optimizer_params, Mapping | None):
            raise TypeError(
                "Trainer: optimizer_params must be a mapping such as {'learning_rate': 0.1}, "
                f"got {optimizer_params!r}."
            )
        self._optimizer = Optimizer.create_optimizer(optimizer, **(optimizer_params or {}))
        self._scale = self._optimizer.rescale_grad
        self._scaling = LossScaling(loss_scaler)
        self._names, weights, self._tree = flatten_with_names(params)
        if len(set(self._names)) < len(self._names):
            double = next(n for i, n in enumerate(self._names) if n in self._names[:i])
            raise ValueError(f"Trainer({double!r}): every weight must have a path of its own.")
        self._look_for_names("Trainer")
        states: Any
        if isinstance(self._optimizer, TreeOptimizer) and not self._optimizer._is_separable():
            states = self._optimizer.definition._init(params)
        else:
            create = self._optimizer.create_state_multi_precision
            states = [create(name, w) for name, w in zip(self._names, weights, strict=True)]
        self._weights = [jnp.array(weight, copy=True) for weight in weights]
        self._keep(states)

    # Reading.

    @property
    def params(self) -> Any:
        """The weights as they stand, a tree like the one given.

        Each call makes the tree anew: what is put into it does not reach the Trainer. A whole tree
        can be set, like the one given; masters follow, and the rest of the states stays.
        """
        return jax.tree.unflatten(self._tree, self._weights)

    @params.setter
    def params(self, params: Any) -> None:
        """Goes on with copies of other weights; of what the optimizer remembers, masters follow.

        Raises:
            ValueError: they are not like the weights in names, shapes and dtypes.
        """
        named = dict(zip(*flatten_with_names(params)[:2], strict=True))
        wanted = {n: (w.shape, w.dtype) for n, w in zip(self._names, self._weights, strict=True)}
        given = {n: (jnp.shape(w), jnp.result_type(w)) for n, w in named.items()}
        for name in [*wanted, *given]:
            if given.get(name) != wanted.get(name):
                raise ValueError(
                    f"Trainer.params({name!r}): a weight must have shape and dtype "
                    f"{wanted.get(name)}, got {given.get(name)}."
                )
        # Another container may have the same names in another order.
        weights = [named[name] for name in self._names]
        if self._whole is None:
            self._keep([_of_weight(s, w) for s, w in zip(self._states(), weights, strict=True)])
        elif any(leaf is not None for leaf in masters(self.params, self._whole).values()):
            raise ValueError(
                "Trainer.params: weights with masters cannot be set beside a transformation of "
                "optax; make another Trainer."
            )
        self._weights = [jnp.array(weight, copy=True) for weight in weights]

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer, for its counts, multipliers and hyperparameters."""
        return self._optimizer

    @property
    def states(self) -> dict[str, Any]:
        """What the optimizer remembers of each weight, by path.

        Where a transformation of optax is inside, it is one `State` of the whole tree, under `""`.
        """
        if self._whole is not None:
            return {"": self._whole}
        return dict(zip(self._names, self._states(), strict=True))

    @property
    def learning_rate(self) -> float:
        """The learning rate as it stands, before multipliers."""
        return self._optimizer.learning_rate

    @property
    def loss_scale(self) -> jax.Array:
        """The factor of the loss in this step, a float32 scalar; 1 without a `loss_scaler`."""
        return self._scaling.state.loss_scale

    def set_learning_rate(self, lr: float) -> None:
        """Sets the learning rate.

        Raises:
            UserWarning: there is a scheduler, which decides.
        """
        self._optimizer.set_learning_rate(lr)

    def _look_for_names(self, call: str) -> None:
        """Warns of multipliers of no weight."""
        for message in self._optimizer._without_weight(self._names):
            warn_caller(f"{call}: {message}")
        self._looked_at = self._multipliers()

    def _multipliers(self) -> tuple[Any, Any]:
        """The tables as they are, to be told from others set later; a wrapper's are not seen."""
        tables = vars(self._optimizer)
        return tables.get("lr_mult"), tables.get("wd_mult")

    # Updates.

    def step(self, grads: Any, batch_size: float, ignore_stale_grad: bool = False) -> Any:
        """Updates all weights in one compiled call.

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
        return self._step("Trainer.step", grads, batch_size, ignore_stale_grad)

    def update(self, grads: Any, batch_size: float, ignore_stale_grad: bool = False) -> Any:
        """Does what `step` does; gluon's needs the gradients of several devices summed before."""
        return self._step("Trainer.update", grads, batch_size, ignore_stale_grad)

    def _step(self, call: str, grads: Any, batch_size: Any, ignore_stale_grad: bool) -> Any:
        batch_size = as_number(call, "batch_size", batch_size, Real)
        if jnp.ndim(batch_size) != 0 or not batch_size > 0:
            raise ValueError(f"{call}: batch_size must be above 0, got {batch_size!r}.")
        leaves = self._flat(call, grads)
        tables = zip(self._multipliers(), self._looked_at, strict=True)
        if any(now is not then and now != then for now, then in tables):
            self._look_for_names(call)
        if not ignore_stale_grad and any(leaf is None for leaf in leaves):
            stale = self._names[next(n for n, leaf in enumerate(leaves) if leaf is None)]
            raise UserWarning(
                f"{call}({stale!r}): grad must be an array, got None; ignore_stale_grad=True "
                "leaves such weights as they are."
            )
        for name, leaf in zip(self._names, leaves, strict=True):
            if leaf is not None and not hasattr(leaf, "dtype"):
                kind = type(leaf).__name__
                raise TypeError(f"{call}({name!r}): grad must be an array, got {kind}.")
        finite, following = self._scaling.judged(leaves)
        if not finite:
            self._scaling.state = following
            return self.params
        optimizer = self._optimizer
        before = optimizer.rescale_grad
        if optimizer._adds_up():
            # The factor of the last call would be that of all gradients before.
            optimizer.rescale_grad = self._scale
            factor = jnp.asarray(1 / batch_size / self._scaling.divisor)
            leaves = _multiplied(leaves, factor)
        else:
            optimizer.rescale_grad = self._scale / batch_size / self._scaling.divisor
        try:
            self._advance(call, leaves)
        except BaseException:
            optimizer.rescale_grad = before
            raise
        self._scaling.state = following
        return self.params

    def _advance(self, call: str, grads: list[Any]) -> None:
        optimizer, names = self._optimizer, self._names
        if names:
            optimizer._set_current_context(device_id(self._weights[0]))
        if self._slots is not None:
            self._weights, self._slots, self._masters = optimizer._update_laid_out(
                names, self._weights, grads, self._slots, self._masters, call, donate=True
            )
            return
        stale = next((n for n, grad in enumerate(grads) if grad is None), None)
        if isinstance(optimizer, TreeOptimizer):
            joint = optimizer._joint()
            if stale is not None and joint is not None:
                raise ValueError(
                    f"{call}({names[stale]!r}): grad must be an array, as {joint} looks at all "
                    "weights together, got None."
                )
            if self._whole is not None:
                trees = self.params, self._tree.unflatten(grads)
                new, self._whole = optimizer._step_whole(call, names, *trees, self._whole)
                self._weights = jax.tree.leaves(new)
                return
        fresh = [n for n, grad in enumerate(grads) if grad is not None]
        chosen = ([given[n] for n in fresh] for given in (names, self._weights, grads, self._own))
        updated = optimizer._update_each(*chosen)
        for n, weight, state in zip(fresh, *updated, strict=True):
            self._weights[n], self._own[n] = weight, state

    def _flat(self, call: str, grads: Any) -> list[Any]:
        """The gradients in the order of the weights, None among them."""
        try:
            return self._tree.flatten_up_to(grads)
        except ValueError:
            pass
        try:
            return flatten_grads(self._tree, self._names, grads)
        except MismatchError as error:
            raise explained(call, error) from None

    # States.

    def _keep(self, states: Any) -> None:
        """Takes states over, laid out for one compiled call where the optimizer allows it.

        Args:
            states: a list with one for each weight, or that of the whole tree.
        """
        optimizer, self._own = self._optimizer, states
        self._slots = self._masters = self._whole = None
        if isinstance(states, State):
            self._own, self._whole = [], states
            return
        if optimizer._own_update:
            return
        kinds = [
            (optimizer._algorithm._adapts(optimizer._name(name)), jax.tree.structure(state))
            for name, state in zip(self._names, states, strict=True)
        ]
        layout = Layout.of(self._weights, kinds)
        parts = [slots_and_master(state) for state in states]
        self._slots = layout.pack([slots for slots, _ in parts])
        self._masters = layout.pack([master for _, master in parts])
        self._own = []

    def _states(self) -> list[Any]:
        if self._slots is None or self._masters is None:
            return self._own
        parts = self._slots.unpack(), self._masters.unpack()
        return list(map(with_master, *parts))

    def save_states(self, fname: Path) -> None:
        """Writes the states, the loss scale and the optimizer, save its `param_dict`, to a file.

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
        """What goes into a file: the states by path, or the leaves of that of the whole tree."""
        if self._whole is None:
            return self.states
        names, leaves, _ = flatten_with_names(self._whole)
        return dict(zip(names, leaves, strict=True))

    def load_states(self, fname: Path, names: Sequence[str] | None = None) -> None:
        """Goes on from a file that `save_states` wrote, or gluon's Trainer in MXNet.

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
        current = self._kept()
        found = loaded(call, data, self._optimizer, current)
        made, states = found.optimizer, found.states
        numbers = paths_by_number(call, states, self._names, self._weights, names)
        if numbers:
            states = {numbers.get(index, index): state for index, state in states.items()}
            rename(made, numbers)
        in_place = in_their_places(call, states, current, whole=self._whole is not None)
        if self._whole is not None:
            leaves, tree = jax.tree.flatten(self._whole)
            pairs = zip(in_place.values(), leaves, strict=True)
            kept: Any = tree.unflatten([placed(leaf, old) for leaf, old in pairs])
        else:
            pairs = zip(in_place.items(), self._weights, strict=True)
            kept = [
                placed(checked(call, name, weight, state, current[name]), weight)
                for (name, state), weight in pairs
            ]
        try:
            scale = self._scaling.taken(found.more)
        except ValueError as error:
            raise ValueError(f"{call}: {error}") from None
        self._optimizer = adopted(self._optimizer, made)
        self._keep(kept)
        self._scaling.state = scale
        if found.more is not None and self._scaling.scaler is None:
            warn_caller(f"{call}: the file's loss scale is left out, as there is no loss_scaler.")

    def __repr__(self) -> str:
        return f"Trainer({len(self._names)} weights, {self._optimizer!r})"


def _of_weight(state: Any, weight: Any) -> Any:
    """A state whose master, if it has one, is another weight's."""
    if not isinstance(state, (MasterState, State)) or state.master is None:
        return state
    return state._replace(master=jnp.asarray(weight).astype(state.master.dtype))
