"""Writes real files of MXNet for the tests to read.

    python tests/reference/record_files.py [--out DIR]

Makes the environments it needs, as ``record.py`` does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from record import FILES as TRAJECTORIES
from record import _python

HERE = Path(__file__).resolve().parent
FILES = HERE / "files"


def record_files(out: Path = FILES) -> None:
    """Writes the files of both versions of MXNet into a folder, made if missing."""
    out.mkdir(parents=True, exist_ok=True)
    settings = {"MXNET_ENGINE_TYPE": "NaiveEngine", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("MXNET_OPTIMIZER")
    }
    for version in TRAJECTORIES:
        command = [_python(version), HERE / "_files_worker.py", "--out", out.resolve()]
        subprocess.run(command, check=True, env=environment | settings)


def main() -> None:
    """Writes the files where the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=FILES)
    record_files(parser.parse_args().out)


if __name__ == "__main__":
    main()
