"""A file is the old one or the new one, whole, whenever its writer dies."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxmxopt import checkpoint
from jaxmxopt._files.files import replacing

# Children are forked, so that jax is imported once. They never touch a device.
KILLER = """
import os, random, signal, sys, time, warnings
import numpy as np
from jaxmxopt import checkpoint

warnings.filterwarnings("ignore", message="os.fork")
path, draw = sys.argv[1], random.Random(0)
like = {name: np.zeros(5_000) for name in "abc"}
values = set()
start = time.perf_counter()
checkpoint.save(path, like)
pace = time.perf_counter() - start
for start in range(0, 100_000, 1000):
    child = os.fork()
    if child == 0:
        for value in range(start, start + 1000):
            checkpoint.save(path, {name: like[name] + value for name in like})
        os._exit(1)
    time.sleep(draw.uniform(0.0, 4 * pace))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    whole = checkpoint.load(path, like)
    (value,) = {float(x) for array in whole.values() for x in np.unique(array)}
    values.add(value)
print(len(values))
"""


def test_a_hundred_killed_writers(tmp_path: pathlib.Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "state.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 20
    # Some died with a file half written, which has another name.
    assert any(name.suffix == ".tmp" for name in tmp_path.iterdir())


def test_an_error_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "state.npz"
    checkpoint.save(path, {"x": np.ones(2)})
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:  # noqa: PT012
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [path]
    assert checkpoint.load(path, {"x": np.zeros(2)})["x"].tolist() == [1, 1]


def test_bytes_reach_the_disk_before_the_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda *both: (calls.append("replace"), replace(*both))[1])
    checkpoint.save(tmp_path / "state.npz", {"x": np.ones(2)})
    assert calls == ["fsync", "replace", "fsync"]
