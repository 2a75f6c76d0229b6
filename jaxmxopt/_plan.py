"""How numbers of the host reach a compiled update: as one vector, or as a table and a vector."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import numpy as np

from jaxmxopt import _compiled
from jaxmxopt._definition import OptimizerDef
from jaxmxopt._one_loop import makes_own_program

__all__ = ["Plan"]

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

    Args:
        algorithm: the definition, its numbers Python floats.
        rates: what its `_rates` gives, of which the structure counts.
        wide: whether JAX has 64-bit types.
    """

    def __init__(self, algorithm: OptimizerDef, rates: Any, wide: bool) -> None:
        self.wide = wide
        self._algorithm = algorithm._with(**_RESOLVED)
        self._dtype = np.float64 if wide else np.float32
        leaves, self._rates_structure = jax.tree.flatten(rates)
        self._width = len(leaves)
        numbers, self._structure = jax.tree.flatten(self._algorithm)
        self._both = jax.tree.structure((rates, self._algorithm))
        self._numbers = np.asarray(numbers, self._dtype)
        self._joined = np.concatenate([np.zeros(self._width, self._dtype), self._numbers])
        self._runs: dict[Hashable, Callable[..., Any]] = {}
        self._latest: tuple[Any, Any] = (None, None)

    def update(
        self, index: Hashable, name: Callable[[Hashable], str], rates: Any, *arrays: Any
    ) -> Any:
        """Updates one weight.

        Args:
            index: the weight's.
            name: gives the name of an index.
            rates: of this update.
            *arrays: weight, gradient and state.
        """
        run = self._runs.get(index)
        if run is None:
            adapts = self._algorithm._adapts(name(index))
            self._runs[index] = run = _compiled.apply(self._both, adapts)
        known, numbers = self._latest
        if known != rates:
            numbers = self._joined.copy()
            numbers[: self._width] = jax.tree.leaves(rates)
            self._latest = rates, numbers
        return run(numbers, *arrays)

    def run_all(
        self, indices: Sequence[Hashable], name: Callable[[Hashable], str], donate: bool, slots: Any
    ) -> Callable[..., Any]:
        """The compiled update of these weights, which have these slots, together."""
        own = makes_own_program(slots.groups[:1])
        key = tuple(indices), donate, own
        run = self._runs.get(key)
        if run is None:
            adapts = tuple(self._algorithm._adapts(name(index)) for index in indices)
            run = _compiled.apply_all(self._rates_structure, self._structure, adapts, donate, own)
            self._runs[key] = run
        return run

    def table(self, distinct: Sequence[Any], which: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of an update of many weights: a row of rates for each, and the rest."""
        # A rate may be None, to be filled in by `_adapt`.
        rows = [jax.tree.leaves(rates) for rates in distinct]
        return np.asarray(rows, self._dtype)[np.asarray(which)], self._numbers
