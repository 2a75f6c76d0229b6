"""Records what MXNet's update operators return, for tests/test_operators.py.

    python tests/reference/record_operators.py [--out DIR]

One file for each version: operators that both have are recorded from 1.9.1, whose arithmetic they
follow, and of 2.0.0b1 their arguments alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from record import HERE, _python

FILES = {"1.9.1": "operators_1.npz", "2.0.0b1": "operators_2.npz"}


def main() -> None:
    """Record both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "operators")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"MXNET_ENGINE_TYPE": "NaiveEngine", "OMP_NUM_THREADS": "1"}
    for version, file in FILES.items():
        worker = [_python(version), HERE / "_operators_worker.py", folder.resolve() / file]
        subprocess.run(worker, check=True, env=os.environ | settings)


if __name__ == "__main__":
    main()
