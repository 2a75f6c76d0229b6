"""The programs of examples/ported: where they are, and how near their losses are to MXNet's."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "ported"
RECORDED = ROOT / "tests" / "reference" / "data" / "ported.json"
PROGRAMS = sorted(path.stem.removesuffix("_mxnet") for path in FOLDER.glob("*_mxnet.py"))

# Sums in another order, over a hundred steps; of weights in float16 their own rounding.
ROUNDING = dict.fromkeys(PROGRAMS, 2e-5) | {"loss_scaler": 2.0**-11}


def main_of(name: str) -> Any:
    """The `main` of a program, which imports `tasks` from beside it."""
    spec = importlib.util.spec_from_file_location(f"ported_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module.main


def recorded() -> dict[str, list[float]]:
    """The losses of the MXNet forms."""
    return json.loads(RECORDED.read_text())
