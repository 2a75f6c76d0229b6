"""How numbers of the host reach a compiled update: as one vector, or as a table and a vector."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from jaxmxopt._core import compiled as _compiled
from jaxmxopt._core.compiled import NarrowError, precise
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.one_loop import makes_own_program
from jaxmxopt._core.zero import ZERO, without_zero_decay

__all__ = ["Counted", "Plan", "is_without_decay"]

Counted = tuple[float, float, int]

# What the rates already hold, or what only says where they come from.
_RESOLVED: dict[str, Any] = {
    "learning_rate": None,
    "lr_scheduler": None,
    "wd": None,
    "begin_num_update": 0,
    "multi_precision": False,
    "param_idx2name": None,
    "lr_mult": None,
    "wd_mult": None,
}


class Plan:
    """The compiled functions of one definition, and its numbers as they take them.

    What counting gives comes as `(lr, wd, count)`: the learning rate and decay of a weight, with
    their multipliers, and its count.

    Args:
        algorithm: the definition, its numbers Python floats.
        counted: of any weight. Its rates are taken for those of all in structure.
    """

    def __init__(self, algorithm: OptimizerDef, counted: Counted) -> None:
        self._rates = algorithm._rates
        self._algorithm = algorithm._with(**_RESOLVED)
        rates = algorithm._rates(*counted)
        leaves = jax.tree.leaves(rates)
        self._flat = isinstance(rates, tuple) and list(rates) == leaves
        self._floats, self._structure = jax.tree.flatten(self._algorithm)
        self._both = jax.tree.structure((rates, self._algorithm))
        self._runs: dict[Hashable, Callable[..., Any]] = {}
        self._dtype = precise(()).dtype
        self._latest: tuple[Any, Any] = (None, None)

    def update(
        self,
        index: Hashable,
        name: Callable[[Hashable], str],
        counted: Counted,
        weight: Any,
        grad: Any,
        state: Any,
    ) -> Any:
        """Updates one weight.

        Args:
            index: the weight's.
            name: gives the name of an index.
            counted: of this update.
            weight: an array.
            grad: its gradient.
            state: its slots, or a `MasterState`.
        """
        run = self._runs.get(index)
        if run is None:
            adapts = self._algorithm._adapts(name(index))
            self._runs[index] = run = _compiled.apply(self._both, adapts)
        known, numbers = self._latest
        # Weights that are updated one after the other often have the same.
        if known != counted:
            numbers = np.array([*self._leaves(counted), *self._floats], self._dtype)
            self._latest = counted, numbers
        try:
            return run(numbers, weight, grad, state)
        except NarrowError:
            # JAX has got 64-bit types since. To ask for them at every call would cost more.
            self._dtype, self._latest = np.dtype(np.float64), (None, None)
            return self.update(index, name, counted, weight, grad, state)

    def rates(self, distinct: Sequence[Counted], decays: bool) -> list[Any]:
        """The rates of an update of many weights.

        Args:
            distinct: what is distinct of what counting gave.
            decays: False to leave the decay out, where it is 0 in all of them: weights are not read
                for it then.
        """
        every = [self._rates(*counted) for counted in distinct]
        if decays:
            return every
        without = [without_zero_decay(rates) for rates in every]
        return without if all(is_without_decay(rates) for rates in without) else every

    def run_all(
        self,
        indices: Sequence[Hashable],
        name: Callable[[Hashable], str],
        donate: bool,
        slots: Any,
        rates: Sequence[Any],
    ) -> Callable[..., Any]:
        """The compiled update of these weights, which have these slots and rates, together."""
        own = makes_own_program(slots.groups[:1])
        key = tuple(indices), donate, own, is_without_decay(rates[0])
        run = self._runs.get(key)
        if run is None:
            adapts = tuple(self._algorithm._adapts(name(index)) for index in indices)
            structure = jax.tree.structure(rates[0])
            run = _compiled.apply_all(structure, self._structure, adapts, donate, own)
            self._runs[key] = run
        return run

    def table(self, rates: Sequence[Any], which: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of an update of many weights: a row of rates for each, and the rest."""
        rows = [jax.tree.leaves(one) for one in rates]
        return precise(rows)[np.asarray(which)], precise(self._floats)

    def _leaves(self, counted: Counted) -> Iterable[float]:
        rates: Any = self._rates(*counted)
        # A rate may be None, to be filled in by `_adapt`.
        return rates if self._flat and None not in rates else jax.tree.leaves(rates)


def is_without_decay(rates: Any) -> bool:
    """Whether a decay of 0 has been left out of rates."""
    return getattr(rates, "wd", None) is ZERO
