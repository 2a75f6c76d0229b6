"""What MXNet's update operators returned for drawn arrays, and what those of `jaxmxopt.ops` do.

    XLA_FLAGS=--xla_cpu_max_isa=AVX python tests/operators.py

prints how every case compares, as JSON lines. The flag keeps XLA from fusing multiply and add, as
MXNet's CPU kernels do not.
"""

import functools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
from samples import distance

import jaxmxopt as mxopt
from jaxmxopt import ops

FOLDER = Path(__file__).parent / "reference" / "operators"


@functools.cache
def recorded(file: str) -> tuple[Mapping[str, Any], Mapping[str, np.ndarray]]:
    """The cases and signatures of one file, and its arrays."""
    with np.load(FOLDER / f"{file}.npz") as npz:
        arrays = dict(npz)
    return json.loads(str(arrays.pop("meta"))), arrays


FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))


def called(file: str, case: Mapping[str, Any]) -> tuple[Any, list[np.ndarray]]:
    """What the operator of a case returns, and what MXNet's wrote."""
    arrays = recorded(file)[1]

    def of(number: int) -> np.ndarray:
        return arrays[f"{case['id']}/{number}"]

    args = jax.tree.map(of, case["args"])
    if "-rows-" in case["id"]:
        args[1] = mxopt.RowSparse(*args[1], args[0].shape)
    return getattr(ops, case["op"])(*args, **case["kwargs"]), [of(n) for n in case["out"]]


def compared(file: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """How far what an operator returns is from what MXNet's wrote, in units of float32."""
    returned, wanted = called(file, case)
    # MXNet does not write the master in LAMB's second phase.
    given = jax.tree.leaves(returned)[: len(wanted)]
    equal, off = True, 0.0
    for actual, expected in zip(map(np.asarray, given), wanted, strict=True):
        equal = equal and actual.dtype == expected.dtype
        equal = equal and np.array_equal(actual, expected, equal_nan=True)
        off = max(off, distance(actual, expected, float(np.finfo(np.float32).eps)))
    return {"id": case["id"], "near": case["near"], "equal": bool(equal), "off": off}


def main() -> None:
    """Prints how every case compares."""
    for file in FILES:
        for case in recorded(file)[0]["cases"]:
            sys.stdout.write(json.dumps(compared(file, case)) + "\n")


if __name__ == "__main__":
    main()
