"""Every example runs, in its short form, says that it trained, and draws its picture."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"

# What an example prints, and between what that number lies, all of them where there are several.
SAYS = {
    "data_parallel": [
        (r"held-out accuracy: ([0-9.]+)%", 90, 100),
        (r"state per device, against undivided: 1/([0-9.]+)", 7.9, 8),
    ],
    "digits": [(r"held-out accuracy: ([0-9.]+)%", 80, 100)],
    "equinox_module": [(r"held out: ([0-9.]+)%", 90, 100)],
    "export_step": [(r"held out: ([0-9.]+)%", 90, 100)],
    "flax_linen": [(r"held out: ([0-9.]+)%", 90, 100)],
    "flax_nnx": [(r"held out, .*: ([0-9.]+)%", 90, 100)],
    "lazy_rows": [],
    "mixed_precision": [
        (r"float(?:16|32): ([0-9.]+)%", 90, 100),
        (r"skipped: (\d+), 36, 102 of 150 steps", 35, 35),
    ],
    "orbax_checkpoint": [
        (r"held out, .*: ([0-9.]+)%", 90, 100),
        (r"largest difference of any weight: (.*)", 0, 1e-5),
    ],
    # Six times log 2 at the start; of lazy rows, and dense in as much time.
    "skipgram": [(r"words/s, held-out loss ([0-9.]+)", 0, 4.1)],
    "transformer": [(r"\n(?:AdamW|Lion|Muon|SOAP|Schedule-Free) +[0-9.]+ +([0-9.]+)", 2, 5.5)],
    "sweep": [(r"best of the (?:grid|population): ([0-9.]+)%", 85, 100)],
}
MEASURES_TIME = {"skipgram"}


def examples() -> list[str]:
    """What can be run; the ports have a test of their own."""
    return [
        path.stem
        for path in sorted(EXAMPLES.glob("*.py"))
        if "__main__" in path.read_text() and not path.stem.startswith("ported_")
    ]


def run(name: str, *arguments: object) -> str:
    """Runs an example as its user would, in a process of its own; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    if name not in MEASURES_TIME:
        # Compiling takes longer than all the rest.
        environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", examples())
def test_runs_in_short(name: str, tmp_path: pathlib.Path) -> None:
    source, figure = (EXAMPLES / f"{name}.py").read_text(), tmp_path / "figure.png"
    arguments = ["--quick"] if '"--quick"' in source else []
    draws = '"--figure"' in source
    printed = run(name, *arguments, *(["--figure", figure] if draws else []))
    for pattern, low, high in SAYS[name]:
        numbers = [float(number) for number in re.findall(pattern, printed)]
        assert numbers, printed
        assert all(low <= number <= high for number in numbers), printed
    if draws:
        assert figure.stat().st_size > 10_000
