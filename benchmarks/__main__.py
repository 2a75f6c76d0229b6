"""`python -m benchmarks [--quick] [--device gpu] [--mxnet PYTHON]`: everything, with a report."""

import argparse
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import tqdm

from benchmarks import lazy_rows, measure, report
from benchmarks.trees import TREES

ALGORITHMS = ("adam", "sgd", "adamw", "rmsprop", "lamb", "adagrad")
RESULTS = pathlib.Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    packages = ("jax", "jaxlib", "numpy", "optax", "torch", "jaxmxopt")
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return {
        "device": jax.devices()[0].device_kind,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: found[name] for name in packages if name in found},
    }


def plan(quick: bool, mxnet: pathlib.Path | None, tick: Callable[[], None]) -> list[Any]:
    """The measurements, as functions that give rows."""
    trees = ["resnet50", "small1000"] if quick else list(TREES)
    algorithms = ALGORITHMS[:2] if quick else ALGORITHMS
    rounds = 5 if quick else 15
    cases = list(itertools.product(trees, algorithms))
    tasks: list[Callable[[], Any]] = [
        lambda t=t, a=a: measure.steps(t, a, rounds, mxnet, tick) for t, a in cases
    ]
    tasks += [lambda t=t: measure.steps_in_jit(t, "adam", rounds, tick) for t in trees]
    tasks += [lambda t=t: measure.compiling(t, 1 if quick else 3, tick) for t in trees]
    tasks += [lambda: measure.single_weight(rounds, mxnet, tick)]
    tasks += [lambda: measure.trainer(rounds, mxnet, tick)]
    height, rows = (250_000, 1024) if quick else (1_000_000, 4096)
    kinds = {"ascending": rows, "shuffled": rows, "duplicate": 2 * rows}
    tasks += [
        lambda k=k, n=n: lazy_rows.measured(k, n, height, 6 * rounds, mxnet, tick)
        for k, n in kinds.items()
    ]
    tasks += [lambda: lazy_rows.dense_and_height(rows, height, 6 * rounds, tick)]
    tasks += [lambda t=t: measure.peak_memory(t) for t in trees]
    return tasks


def main() -> None:
    """Measures, then writes results/*.json, a Markdown table and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--mxnet", type=pathlib.Path, help="the python of an MXNet environment")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cuda" if arguments.device == "gpu" else "cpu")
    mxnet = arguments.mxnet if arguments.device == "cpu" else None
    rows: list[Any] = []
    with tqdm.tqdm(unit=" rounds") as bar:
        for task in plan(arguments.quick, mxnet, lambda: bar.update() and None):
            found = task()
            rows += found if isinstance(found, list) else [found]
            bar.set_postfix_str(rows[-1]["case"])
            jax.clear_caches()
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure.second_process(pathlib.Path(folder)))
    result = {"machine": machine(), "rows": rows}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.device}.json"
    path.write_text(json.dumps(result, indent=1))
    report.write(result, arguments.out, arguments.device)
    print(path.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
