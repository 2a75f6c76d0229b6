"""MXNet in a process and an environment of its own, alternated with the others."""

import json
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

WORKER = pathlib.Path(__file__).with_name("mxnet_worker.py")


class MXNetProcess:
    """A case of `mxnet_worker` that runs one step a call."""

    def __init__(self, python: pathlib.Path, case: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._ask(json.dumps(case)) != "ready":
            raise RuntimeError("the MXNet process did not start.")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __call__(self) -> float:
        """Return the seconds of one step."""
        return float(self._ask(""))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
