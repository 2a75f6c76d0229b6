"""The recorded trajectories of MXNet, and the definitions that should follow them."""

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxmxopt as mxopt
from jaxmxopt import lr_scheduler

# `make test-mxnet` replays trajectories that it has just recorded.
FRESH = os.environ.get("JAXMXOPT_TRAJECTORIES")
DATA = Path(FRESH or Path(__file__).parent / "reference" / "data")
FILES = sorted(path.stem for path in DATA.glob("*.npz") if path.stem != "schedulers")

Case = Mapping[str, Any]


@functools.cache
def _file(name: str) -> tuple[Mapping[str, Case], Mapping[str, np.ndarray]]:
    with np.load(DATA / f"{name}.npz") as file:
        arrays = dict(file)
    return {case["id"]: case for case in json.loads(str(arrays.pop("meta")))}, arrays


def cases(*files: str) -> list[Any]:
    """The cases of some files, as parameters named by their ids."""
    return [
        pytest.param(Trajectory(file, case), id=case) for file in files for case in _file(file)[0]
    ]


def some_cases(every: int, *files: str) -> list[Any]:
    """A part of the cases, for what other tests replay too; of fresh trajectories all."""
    return cases(*files)[:: 1 if FRESH else every]


class Trajectory:
    """One recorded case.

    Attributes:
        case: its configuration, as in the file.
        sparse: whether its gradients are row sparse.
    """

    def __init__(self, file: str, case: str) -> None:
        self._file = file
        self._id = case

    @property
    def case(self) -> Case:
        return _file(self._file)[0][self._id]

    @property
    def sparse(self) -> bool:
        return self.case["sparse"]

    def array(self, name: str) -> np.ndarray:
        """One of its arrays, under the name that lacks the case's id."""
        return _file(self._file)[1][f"{self._id}/{name}"]

    def has(self, name: str) -> bool:
        """Whether it has an array of this name."""
        return f"{self._id}/{name}" in _file(self._file)[1]

    def definition(self, key: Any = lambda index: index) -> Any:
        """The definition that should follow it; `key` gives the key of MXNet's indices."""
        case = self.case
        given = dict(case["kwargs"])
        if case["lr_scheduler"] is not None:
            scheduler = getattr(lr_scheduler, case["lr_scheduler"]["class"])
            given["lr_scheduler"] = scheduler(**case["lr_scheduler"]["kwargs"])
        if case["param_idx2name"] is not None:
            given["param_idx2name"] = {key(index): name for index, name in case["param_idx2name"]}
        for field in ("lr_mult", "wd_mult"):
            given[field] = {
                key(name) if isinstance(name, int) else name: factor for name, factor in case[field]
            }
        if self.sparse and case["class"] == "Ftrl":
            # MXNet's own is lazy where the weight is stored row-sparse, and only there.
            given["lazy_update"] = case["weight_stype"] == "row_sparse"
        return getattr(mxopt, case["class"])(**given)

    def weights(self) -> list[np.ndarray]:
        """Weights before the first step."""
        return [self.array(f"weight/{k}")[0] for k in self.case["indices"]]

    def grads(self, step: int) -> list[Any]:
        """Gradients of one step.

        Row-sparse ones have as many rows in each step, the spare ones outside of the weight.
        """
        if self.sparse:
            return [self._rows(k, step) for k in self.case["indices"]]
        return [self.array(f"grad/{k}")[step] for k in self.case["indices"]]

    def _rows(self, k: int, step: int) -> mxopt.RowSparse:
        counts, shape = self.array(f"row_counts/{k}"), tuple(self.case["shapes"][k])
        count, end, most = counts[step], counts[: step + 1].sum(), max(1, counts.max())
        indices = np.full(most, shape[0], np.int32)
        values = np.zeros((most, *shape[1:]), self.case["dtypes"][k])
        indices[:count] = self.array(f"rows/{k}")[end - count : end]
        values[:count] = self.array(f"values/{k}")[end - count : end]
        return mxopt.RowSparse._unchecked(indices, values, shape)

    def expected(self, k: int) -> dict[str, np.ndarray]:
        """Weight `k`, its master and slots after each step, by name."""
        arrays = {"": self.array(f"weight/{k}")[1:]}
        for number, name in enumerate(_leaves(self.case["state"][k])):
            arrays[name] = self.array(f"state/{k}/{number}")
        for name in ("m_schedule", f"cum_grad/{k}", f"num_cums/{k}"):
            if self.has(f"optimizer/{name}"):
                arrays[name.split("/")[0]] = _narrow(self.array(f"optimizer/{name}"))
        if self.has("optimizer/last_lr") and "mom" in arrays:
            arrays["last_lr"] = _narrow(self.array("lr")[:, k])
        return arrays


def _narrow(array: np.ndarray) -> np.ndarray:
    """What MXNet keeps on the host in 64 bits, as slots have it."""
    return array.astype({"f": np.float32, "i": np.int32}[array.dtype.kind])


def _leaves(layout: Any) -> list[str]:
    if isinstance(layout, list):
        return [name for member in layout for name in _leaves(member)]
    return [] if layout is None else [layout]
