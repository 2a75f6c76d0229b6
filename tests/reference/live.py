"""Draws fresh configurations, records them from the real MXNet and replays them at once.

    python tests/reference/live.py [--seed N]

The replays are those of the tests, on other trajectories. Then programs run on both libraries.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from record import record

TESTS = Path(__file__).resolve().parents[1]


def main() -> int:
    """Records, replays; returns the exit status of the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    with tempfile.TemporaryDirectory() as folder:
        record(seed=seed, out=Path(folder))
        print(f"seed {seed}: recorded, now replaying")
        replays = [*sorted(TESTS.glob("test_reference*.py")), TESTS / "test_updater.py"]
        environment = os.environ | {"JAXMXOPT_TRAJECTORIES": folder}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *map(str, replays)]
        failed = subprocess.run(command, env=environment, cwd=TESTS.parent).returncode
    for programs in ("live_programs.py", "live_ported.py"):
        command = [sys.executable, Path(__file__).with_name(programs)]
        failed = subprocess.run(command).returncode or failed
    return failed


if __name__ == "__main__":
    sys.exit(main())
