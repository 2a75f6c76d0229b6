"""`python -m benchmarks [--quick] [--device gpu] [--mxnet PYTHON]`: everything, with a report."""

import argparse
import functools
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
from benchmarks.around import CASES
from benchmarks.trees import TREES

Task = Callable[[], Any]
Tick = Callable[[], None]
ALGORITHMS = ("adam", "sgd", "adamw", "rmsprop", "lamb", "adagrad")
HERE = pathlib.Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs" / "performance.md"


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


def plan(quick: bool, mxnet: pathlib.Path | None, tick: Tick) -> dict[str, list[Task]]:
    """Return the measurements by part, as functions that give rows."""
    trees = ["resnet50", "small1000"] if quick else list(TREES)
    algorithms = ALGORITHMS[:2] if quick else ALGORITHMS
    rounds = 5 if quick else 15
    height, rows = (250_000, 1024) if quick else (1_000_000, 4096)
    kinds = {"ascending": rows, "shuffled": rows, "duplicate": 2 * rows}
    partial = functools.partial
    return {
        "steps": [
            partial(measure.steps, tree, algorithm, rounds, mxnet, tick)
            for tree, algorithm in itertools.product(trees, algorithms)
        ],
        "jit": [
            partial(measure.steps_in_jit, tree, algorithm, rounds, tick)
            for tree, algorithm in itertools.product(trees, algorithms)
        ],
        "around": [
            partial(measure.steps_around, tree, name, rounds, tick)
            for tree, name in itertools.product(trees[:-1], list(CASES)[: 2 if quick else None])
        ],
        "compiling": [partial(measure.compiling, t, 1 if quick else 3, tick) for t in trees],
        "calls": [
            partial(measure.single_weight, rounds, mxnet, tick),
            *(partial(measure.small_net, one, rounds, mxnet, tick) for one in algorithms),
            partial(measure.trainer, rounds, mxnet, tick),
        ],
        "rows": [
            *(
                partial(lazy_rows.measured, kind, count, height, 6 * rounds, mxnet, tick)
                for kind, count in kinds.items()
            ),
            partial(lazy_rows.height, rows, height, 6 * rounds, tick),
            partial(lazy_rows.density, rows, height, 2 * rounds, tick),
        ],
        "memory": [*(partial(measure.peak_memory, tree) for tree in trees), second_process],
    }


def second_process() -> Any:
    """Measure what a second process compiles."""
    with tempfile.TemporaryDirectory() as folder:
        return measure.second_process(pathlib.Path(folder))


def merged(path: pathlib.Path, rows: list[Any]) -> list[Any]:
    """Return the rows of the run before, with these in place of those of the same cases."""
    new = {row["case"]: row for row in rows}
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    kept = [new.pop(row["case"], row) for row in old]
    return [*kept, *new.values()]


def main() -> None:
    """Measures, then writes results/*.json, a Markdown table and the pictures.

    A whole run on a CPU also goes into `docs/performance.md`.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--mxnet", type=pathlib.Path, help="the python of an MXNet environment")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--only", action="append", help="a part; replaces its rows, keeps others")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cuda" if arguments.device == "gpu" else "cpu")
    mxnet = arguments.mxnet if arguments.device == "cpu" else None
    rows: list[Any] = []
    with tqdm.tqdm(unit=" rounds") as bar:
        parts = plan(arguments.quick, mxnet, lambda: bar.update() and None)
        chosen = arguments.only or list(parts)
        if unknown := set(chosen).difference(parts):
            parser.error(f"--only must be of {', '.join(parts)}, got {', '.join(unknown)}")
        for task in itertools.chain.from_iterable(parts[name] for name in chosen):
            found = task()
            rows += found if isinstance(found, list) else [found]
            bar.set_postfix_str(rows[-1]["case"])
            jax.clear_caches()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{arguments.device}.json"
    rows = merged(path, rows) if arguments.only else rows
    result = {"machine": machine(), "rows": rows}
    path.write_text(json.dumps(result, indent=1))
    report.write(result, arguments.out, arguments.device)
    table = path.with_suffix(".md")
    if arguments.out == RESULTS and not arguments.quick and arguments.device == "cpu":
        report.show(table, PAGE)
    print(table.read_text())


if __name__ == "__main__":
    main()
