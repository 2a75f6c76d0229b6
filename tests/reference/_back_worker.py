"""Goes on from files that we wrote; started by ``live_files.py`` in MXNet's environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from _files_worker import optimizer_of
from _training import CASES, TRAININGS


def main() -> None:
    """Trains from every `.states` file in a folder, and writes the weights beside it."""
    for path in sorted(Path(sys.argv[1]).glob("*.states")):
        name, _, case_name = path.stem.partition(".")
        training = TRAININGS[name]
        case = next(case for case in CASES if case.name == case_name)
        with np.load(path.with_suffix(".npz")) as file:
            grads = [file[f"grad/{k}"] for k in range(training.weights)]
            done = int(file["done"])
        loaded = mx.nd.load(str(path.with_suffix(".params")))
        weights = [loaded[str(k)] for k in range(training.weights)]
        # A file with the optimizer in it replaces this one.
        updater = mx.optimizer.get_updater(optimizer_of(training, case, case.begin + done))
        updater.set_states(path.read_bytes())
        for step in range(grads[0].shape[0]):
            given: list[Any] = [mx.nd.array(g[step], dtype=g.dtype) for g in grads]
            updater(list(range(training.weights)), given, weights)
        arrays = {f"weight/{k}": weight.asnumpy() for k, weight in enumerate(weights)}
        np.savez(path.with_suffix(".done.npz"), **arrays)


if __name__ == "__main__":
    main()
