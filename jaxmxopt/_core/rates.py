"""The scalars of one update, for one weight or for the rows of a table."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

__all__ = ["Rates", "RatesByRow"]


class Rates(NamedTuple):
    """The scalars of one update of one weight, multipliers and schedule already in them."""

    lr: Any
    wd: Any


class RatesByRow(Sequence[Any]):
    """The rates of several weights: one pytree with a leading axis."""

    def __init__(self, stacked: Any) -> None:
        self.stacked = stacked

    def __len__(self) -> int:
        return jax.tree.leaves(self.stacked)[0].shape[0]

    def __getitem__(self, number: Any) -> Any:
        if number >= len(self):
            raise IndexError(number)
        return jax.tree.map(lambda column: column[number], self.stacked)
