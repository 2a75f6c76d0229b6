"""How many of MXNet's trajectories the stateful optimizers repeat to the bit.

    XLA_FLAGS=--xla_cpu_max_isa=AVX python tests/same_bits.py [--write docs/fidelity.md]

The flag keeps XLA from fusing multiply and add, as MXNet's CPU kernels do not.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
from samples import distance
from stateful_replay import replay, same_numbers
from trajectories import FILES, Trajectory, cases

# Sums over a weight or a row come in another order, and so round otherwise.
SUMS = {
    "GroupAdaGrad": "sums squares along rows",
    "LAMB": "norms of weights and steps",
    "LANS": "norms of weights, gradients and steps",
    "LARS": "norms of weights and gradients",
}


def compare(trajectory: Trajectory) -> dict[str, Any]:
    """Replays a trajectory: is every array equal to the bit at every step, and how far off?"""
    case, off, equal = trajectory.case, 0.0, True
    expected, counted = [trajectory.expected(k) for k in case["indices"]], True
    for number, step in enumerate(replay(trajectory)):
        counted = counted and same_numbers(trajectory, number, step.optimizer)
        for k in case["indices"]:
            for name, array in step.arrays(k).items():
                wanted = expected[k][name][number]
                actual = np.asarray(array)
                equal = equal and actual.dtype == wanted.dtype and np.array_equal(actual, wanted)
                off = max(off, distance(actual, wanted, float(np.finfo(np.float32).eps)))
    return {
        "id": case["id"],
        "class": case["class"],
        "half": case["multi_precision"],
        "sparse": trajectory.sparse,
        "strategy": case["kwargs"].get("warmup_strategy"),
        "exact_scalars": case["exact_scalars"],
        "equal": bool(equal),
        "same numbers": counted,
        "off": off,
    }


def elementwise(result: dict[str, Any]) -> bool:
    """Whether MXNet's arithmetic of this trajectory works element by element."""
    return result["class"] not in SUMS and result["strategy"] != "lars"


MADE_WITH = re.compile(r"was made with jax (\S+)\.")


def report(results: Iterable[dict[str, Any]]) -> str:
    """The table of `docs/fidelity.md`."""
    by_class: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_class.setdefault(result["class"], []).append(result)
    lines = [
        "| algorithm | trajectories | equal to the bit | the others at most | why |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(by_class, key=str.lower):
        rows = by_class[name]
        others = [row for row in rows if not row["equal"]]
        most = "; ".join(filter(None, (_most(others, half) for half in (False, True)))) or "-"
        why = "; ".join(dict.fromkeys(_why(row) for row in others)) or "-"
        lines.append(f"| {name} | {len(rows)} | {len(rows) - len(others)} | {most} | {why} |")
    return "\n".join(lines) + "\n"


def _most(others: list[dict[str, Any]], half: bool) -> str:
    off = [row["off"] for row in others if row["half"] == half]
    return f"{max(off):.1f} units{' beside masters' if half else ''}" if off else ""


def _why(result: dict[str, Any]) -> str:
    if result["strategy"] == "lars":
        return "`warmup_strategy='lars'`: " + SUMS["LARS"]
    if not elementwise(result):
        return SUMS[result["class"]]
    return "unknown" if result["exact_scalars"] else "a number that MXNet's parser reads wrongly"


def main() -> None:
    """Compares all, prints the results as JSON lines, and writes the table where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page whose table is to be replaced")
    parser.add_argument("--only", default="", help="names of files, joined by commas")
    arguments = parser.parse_args()
    files = arguments.only.split(",") if arguments.only else [f for f in FILES if f != "sgld"]
    results: list[dict[str, Any]] = []
    for file in files:
        # No two files share a program.
        jax.clear_caches()
        for (trajectory,) in (param.values for param in cases(file)):
            results.append(compare(trajectory))
            sys.stdout.write(json.dumps(results[-1]) + "\n")
            sys.stdout.flush()
    if arguments.write is not None:
        text = arguments.write.read_text()
        text = MADE_WITH.sub(f"was made with jax {jax.__version__}.", text)
        begin = text.index("| algorithm |")
        end = text.index("\n\n", begin) + 1 if "\n\n" in text[begin:] else len(text)
        arguments.write.write_text(text[:begin] + report(results) + text[end:])


if __name__ == "__main__":
    main()
