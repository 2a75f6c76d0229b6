"""Records trajectories of the real MXNet for the tests to compare with.

    python tests/reference/record.py [--seed N] [--out DIR] [--only adam,sgd]
    python tests/reference/record.py --schedulers

Makes the environments it needs, which takes CPython 3.11 and pip; ``JAXMXOPT_MXNET_ENVS``
names another folder for them than ``.mxnet`` in the repository.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
SEED = 0

SCHEDULERS = "schedulers"
FILES: dict[str, tuple[str, ...]] = {
    "1.9.1": (
        *("sgd", "ccsgd", "nag", "signum", "sgld", "dcasgd", "lbsgd", "lars", "lamb", "adam"),
        *("adamax", "nadam", "ftml", "adagrad", "groupadagrad", "adadelta", "rmsprop"),
        *("ftrl", "test"),
        *("sgd_rowsparse", "adam_rowsparse", "lars_rowsparse", "adagrad_rowsparse"),
        *("groupadagrad_rowsparse", "ftrl_rowsparse"),
        SCHEDULERS,
    ),
    "2.0.0b1": ("adamw", "adabelief", "lans", "dcasgd_momentum"),
}
"""The files that are recorded, by the MXNet they are recorded from."""


def record(seed: int = SEED, out: Path = DATA, only: Sequence[str] = ()) -> list[Path]:
    """Records trajectories from MXNet.

    Args:
        seed: what configurations, weights and gradients are drawn from.
        out: the folder for the files, made if missing.
        only: names of algorithms or files; an algorithm stands for all of its files.
            Empty: everything.

    Returns:
        The files written.

    Raises:
        ValueError: if a name in ``only`` is unknown.
    """
    known = {part for files in FILES.values() for name in files for part in _names(name)}
    if unknown := sorted(set(only) - known):
        raise ValueError(f"record: unknown names {unknown}, expected among {sorted(known)}")
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for version, files in FILES.items():
        chosen = [name for name in files if not only or _names(name) & set(only)]
        if chosen:
            _run_worker(version, seed, out.resolve(), chosen)
            written += [out / f"{name}.npz" for name in chosen]
    return written


def _names(file: str) -> set[str]:
    """What a file can be asked for by: its own name and its algorithm's."""
    return {file, file.split("_")[0]}


def _run_worker(version: str, seed: int, out: Path, names: Sequence[str]) -> None:
    # The naive engine and one thread: errors where they arise, sums in one order.
    settings = {
        "MXNET_ENGINE_TYPE": "NaiveEngine",
        "OMP_NUM_THREADS": "1",
        "MXNET_STORAGE_FALLBACK_LOG_VERBOSE": "0",
    }
    ignored = ("MXNET_OPTIMIZER_AGGREGATION_SIZE", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in ignored}
    worker = [_python(version), HERE / "_worker.py", "--seed", str(seed), "--out", out, *names]
    subprocess.run(worker, check=True, env=environment | settings)


def _python(version: str) -> Path:
    """The interpreter of the environment with an MXNet, made if missing."""
    folder = os.environ.get("JAXMXOPT_MXNET_ENVS", HERE.parents[1] / ".mxnet")
    environment = Path(folder).resolve() / version
    python = environment / "bin" / "python"
    if not python.exists():
        maker = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
        if maker is None:
            raise RuntimeError("MXNet needs CPython 3.11: there is no python3.11 on the PATH.")
        packages = [f"mxnet=={version}", "numpy==1.23.5"]
        try:
            subprocess.run([maker, "-m", "venv", environment], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(environment, ignore_errors=True)
            raise
    return python


def main() -> None:
    """Records what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--only", default="", help="names of algorithms, joined by commas")
    parser.add_argument("--schedulers", action="store_true", help="the schedulers alone")
    arguments = parser.parse_args()
    only = [name.strip().lower() for name in arguments.only.split(",") if name.strip()]
    if arguments.schedulers:
        only.append(SCHEDULERS)
    record(arguments.seed, arguments.out, only)


if __name__ == "__main__":
    main()
