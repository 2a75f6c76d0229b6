"""Runs the programs of examples/ported on MXNet and on jaxmxopt, and compares their losses.

    python tests/reference/live_ported.py [--record]

Each program stands there in both forms, and gives its losses over a hundred steps. They are to be
equal to rounding. `--record` writes those of MXNet to data/ported.json for the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import _python

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ported import FOLDER, PROGRAMS, RECORDED, ROUNDING

# Either interpreter runs this in the folder of the programs.
WORKER = """
import importlib, json, sys
ending, out, *names = sys.argv[1:]
losses = {name: importlib.import_module(name + ending).main() for name in names}
with open(out, "w") as file:
    json.dump({name: [float(f"{loss:.9g}") for loss in of] for name, of in losses.items()}, file)
"""


def main() -> int:
    """Compares; returns 1 where losses differ by more than rounding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    with tempfile.TemporaryDirectory() as folder:
        mxnet = _losses(_python("1.9.1"), "_mxnet", Path(folder))
        if parser.parse_args().record:
            lines = (f"{json.dumps(name)}: {json.dumps(of)}" for name, of in mxnet.items())
            RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        ours = _losses(Path(sys.executable), "", Path(folder))
    failed = False
    for name, expected in mxnet.items():
        apart = np.max(np.abs(np.array(ours[name]) / expected - 1))
        good = len(ours[name]) == len(expected) and apart <= ROUNDING[name]
        failed |= not good
        print(
            f"{name}: loss {expected[0]:.3f} to {expected[-1]:.3f} in {len(expected)} steps, "
            f"apart by {apart:.1e}{'' if good else ' FAILED'}"
        )
    return int(failed)


def _losses(python: Path, ending: str, folder: Path) -> dict[str, list[float]]:
    out = folder / "losses.json"
    settings = {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [python, "-W", "ignore", "-c", WORKER, ending, out, *PROGRAMS]
    subprocess.run(command, check=True, cwd=FOLDER, env=os.environ | settings)
    return json.loads(out.read_text())


if __name__ == "__main__":
    sys.exit(main())
