"""The ported examples train, and stay beside what they were."""

import os
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["module", "gluon", "custom"])
def test_ported_examples_train(name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"ported_{name}.py", "--steps", "300"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    first, *_, last = (float(line.split()[-1]) for line in lines)
    assert last < 0.6 * first
    assert (EXAMPLES / f"ported_{name}_mxnet.py").exists()
