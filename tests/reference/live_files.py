"""Lets the real MXNet 1.9.1 go on from files that we write, and compares where it gets to.

    python tests/reference/live_files.py [ALGORITHM...]

Every recorded training is loaded in the middle, goes on here for a while, is written back, and
goes on in MXNet to its end, which must be the recorded one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from mxnet_training import RECORDED, STEPS, TRAININGS, Middle  # noqa: E402
from record import _python  # noqa: E402

from jaxmxopt.mxnet_files import save_params, save_states  # noqa: E402

HERE_STEPS = 10
"""Steps that are made here, of those recorded after the middle."""

IN_THE_OPTIMIZER = ("nadam", "lbsgd")
"""MXNet keeps some of their state in the optimizer: without it nothing goes on."""

UNITS = {np.dtype(np.float32): 60, np.dtype(np.float16): 1}


def write(folder: Path, name: str, case: str) -> None:
    """Goes on with one training for a while, and writes it back."""
    middle = Middle(name, case)
    updater = middle.updater()
    weights = middle.train(updater, middle.weights, range(HERE_STEPS))
    path = folder / f"{name}.{case}.states"
    dump = middle.case.dump or name in IN_THE_OPTIMIZER
    save_states(path, updater, dump_optimizer=dump)
    save_params(path.with_suffix(".params"), {str(k): w for k, w in enumerate(weights)})
    rest = {f"grad/{k}": grad[HERE_STEPS:] for k, grad in enumerate(middle.grads)}
    np.savez(path.with_suffix(".npz"), done=STEPS + HERE_STEPS, **rest)


def off(folder: Path, name: str, case: str) -> float:
    """How far MXNet got from the recorded weights, in units of rounding of the largest."""
    middle = Middle(name, case)
    largest = 0.0
    with np.load(folder / f"{name}.{case}.done.npz") as file:
        for k, expected in enumerate(middle.expected):
            wanted = expected.astype(np.float64)
            error = np.abs(file[f"weight/{k}"].astype(np.float64) - wanted).max()
            unit = np.finfo(expected.dtype).eps * np.abs(wanted).max() * UNITS[expected.dtype]
            largest = max(largest, float(error / unit))
    return largest


def main() -> int:
    """Says how far every training got; 1 if one went elsewhere."""
    asked = sys.argv[1:] or list(TRAININGS)
    recorded = [(name, case) for name, case in RECORDED if name in asked]
    chosen = [(name, case) for name, case in recorded if TRAININGS[name].mxnet == "1.9.1"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, case in chosen:
            write(folder, name, case)
        worker = [_python("1.9.1"), HERE / "_back_worker.py", folder]
        subprocess.run(worker, check=True)
        errors = {(name, case): off(folder, name, case) for name, case in chosen}
    for (name, case), error in errors.items():
        print(f"{name:18} {case:10} {error:.3f}{'' if error <= 1 else '  DIFFERENT'}")
    return int(max(errors.values()) > 1)


if __name__ == "__main__":
    sys.exit(main())
