"""Runs one program on the real MXNet and on jaxmxopt, and compares its losses.

    python tests/reference/live_programs.py

Where MXNet's arithmetic works element by element the losses are to be equal to the last bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import _python
from sklearn.datasets import load_digits

PROGRAM = Path(__file__).with_name("_program.py")
# Norms are sums over a weight, in another order.
WITH_SUMS = {"lamb"}


def main() -> int:
    """Compares; returns 1 where losses differ."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "digits.npz"
        digits = load_digits()
        np.savez(data, images=digits.images, labels=digits.target)
        mxnet = _losses(_python("1.9.1"), "mxnet", data)
        ours = _losses(Path(sys.executable), "jaxmxopt", data)
    failed = False
    for name, expected in mxnet.items():
        apart = np.max(np.abs(np.array(ours[name]) / expected - 1))
        good = apart < 1e-3 if name in WITH_SUMS else apart == 0
        failed |= not good
        print(
            f"{name}: loss {expected[0]:.3f} to {expected[-1]:.3f} in {len(expected)} steps, "
            f"apart by {apart:.1e}{'' if good else ' FAILED'}"
        )
    return int(failed)


def _losses(python: Path, library: str, data: Path) -> dict[str, list[float]]:
    out = data.with_name(f"{library}.json")
    settings = {"XLA_FLAGS": "--xla_cpu_max_isa=AVX", "JAX_PLATFORMS": "cpu"}
    settings |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, "-W", "ignore", PROGRAM, library, data, out]
    subprocess.run(command, check=True, env=environment | settings)
    return json.loads(out.read_text())


if __name__ == "__main__":
    sys.exit(main())
