"""Every example runs, in a short form, and writes its picture."""

import os
import pathlib
import re
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object) -> str:
    """Runs an example as its user would, in a process of its own; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_digits_trains_and_draws(tmp_path: pathlib.Path) -> None:
    figure = tmp_path / "digits.png"
    assert "held-out accuracy" in run("digits", "--short", "--figure", figure)
    assert figure.stat().st_size > 10_000


def test_skipgram_learns_and_draws(tmp_path: pathlib.Path) -> None:
    figure = tmp_path / "skipgram.png"
    printed = run("skipgram", "--quick", "--figure", figure)
    losses = re.findall(r"words/s, held-out loss ([0-9.]+)", printed)
    assert len(losses) == 2  # Of lazy rows, and dense in as much time.
    assert max(map(float, losses)) < 4.1  # Six times log 2 at the start.
    assert "float32: " in printed
    assert figure.stat().st_size > 10_000


def test_lazy_rows_draws(tmp_path: pathlib.Path) -> None:
    figure = tmp_path / "lazy_rows.png"
    run("lazy_rows", "--figure", figure)
    assert figure.stat().st_size > 10_000
