"""Records the algorithms of today from their authors' code, or from what most people use.

    python tests/reference/originals.py [--seed N] [--out DIR] [--only lion,adamw]

Runs in the environment that `make test-torch` makes. A file for each algorithm: twelve drawn
configurations, several weights, the weights after every step.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

OUT = Path(__file__).resolve().parent / "originals"
CASES = 12
STEPS = 8
# Of every case, so that one compiled program may serve many.
SHAPES = {"matrix": (4, 3), "cube": (2, 3, 2), "vector": (5,), "scalar": ()}

Draw = np.random.Generator
Options = dict[str, Any]


class Original(NamedTuple):
    """Where an algorithm is recorded from.

    Attributes:
        ours: the class of jaxmxopt.
        theirs: module and class.
        draw: makes our arguments and theirs, without rate and decay.
        rates: the largest and the smallest rate.
        per_weight: each weight may have factors of rate and decay of its own.
        begin: prepares their optimizer for training.
        settle: turns their weights into those to evaluate with, if they are others.
    """

    ours: str
    theirs: str
    draw: Callable[[Draw], tuple[Options, Options]]
    rates: tuple[float, float] = (1e-3, 0.1)
    per_weight: bool = True
    begin: Callable[[Any], None] = lambda optimizer: None
    settle: Callable[[Any], None] | None = None


def betas(draw: Draw) -> tuple[float, float]:
    """Decay rates of two moments."""
    return float(draw.choice([0.8, 0.9, 0.95])), float(draw.choice([0.9, 0.99, 0.999]))


def lion(draw: Draw) -> tuple[Options, Options]:
    beta1, beta2 = betas(draw)
    return {"beta1": beta1, "beta2": beta2}, {"betas": (beta1, beta2)}


ORIGINALS: Mapping[str, Original] = {
    "lion": Original("Lion", "lion_pytorch.Lion", lion),
}


def made(original: Original, params: Any, case: Mapping[str, Any], theirs: Options) -> Any:
    """Their optimizer, with a group of parameters for every weight."""
    module, _, name = original.theirs.rpartition(".")
    groups = [
        {
            "params": [param],
            "lr": case["rates"][0] * case["lr_mult"].get(name, 1.0),
            "weight_decay": case["wd"] * case["wd_mult"].get(name, 1.0),
        }
        for name, param in params.items()
    ]
    kind = getattr(importlib.import_module(module), name)
    # Some of them print.
    with contextlib.redirect_stdout(io.StringIO()):
        return kind(groups, lr=case["rates"][0], weight_decay=case["wd"], **theirs)


def drawn(original: Original, number: int, draw: Draw) -> tuple[dict[str, Any], Options]:
    """A case, and the arguments of theirs."""
    high, low = max(original.rates), min(original.rates)
    first = float(np.exp(draw.uniform(np.log(low), np.log(high))))
    falling = number % 3 == 2
    rates = [first * (0.7**step if falling else 1.0) for step in range(STEPS)]
    ours, theirs = original.draw(draw)
    apart = original.per_weight and number % 4 == 1
    case = {
        "class": original.ours,
        "kwargs": ours,
        "rates": rates,
        "wd": float(draw.choice([0.01, 0.1])) if number % 2 else 0.0,
        "lr_mult": {"vector": 0.5} if apart else {},
        "wd_mult": {"vector": 0.0, "scalar": 2.0} if apart else {},
    }
    return case, theirs


def recorded(original: Original, case: Mapping[str, Any], theirs: Options, draw: Draw) -> Options:
    """Gradients and weights of all steps, by name."""
    weights = {
        name: np.asarray(draw.standard_normal(shape), np.float32) for name, shape in SHAPES.items()
    }
    params = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in weights.items()}
    optimizer = made(original, params, case, theirs)
    original.begin(optimizer)
    track: dict[str, list[Any]] = {f"weight/{name}": [w] for name, w in weights.items()}
    for step in range(STEPS):
        for (name, param), group in zip(params.items(), optimizer.param_groups, strict=True):
            grad = np.asarray(draw.standard_normal(SHAPES[name]), np.float32)
            # Some elements see no gradient.
            grad = np.where(draw.random(SHAPES[name]) < 0.1, np.float32(0), grad)
            param.grad = torch.tensor(grad)
            track.setdefault(f"grad/{name}", []).append(grad)
            group["lr"] = case["rates"][step] * case["lr_mult"].get(name, 1.0)
        with contextlib.redirect_stdout(io.StringIO()):
            optimizer.step()
        for name, param in params.items():
            track[f"weight/{name}"].append(param.detach().numpy().copy())
    if original.settle is not None:
        original.settle(optimizer)
        for name, param in params.items():
            track[f"averaged/{name}"] = [param.detach().numpy().copy()]
    return {name: np.stack(arrays) for name, arrays in track.items()}


def record(name: str, seed: int) -> dict[str, Any]:
    """Records one file."""
    original, cases, arrays = ORIGINALS[name], [], {}
    for number in range(CASES):
        draw = np.random.default_rng([seed, number, zlib.crc32(name.encode())])
        case, theirs = drawn(original, number, draw)
        case["id"] = f"{name}-{number:02}"
        cases.append(case)
        for key, array in recorded(original, case, theirs, draw).items():
            if not np.isfinite(array).all():
                raise RuntimeError(f"{case['id']}: {key} does not stay finite")
            arrays[f"{case['id']}/{key}"] = array
    return {"meta": np.array(json.dumps(cases)), **arrays}


def main() -> None:
    """Records the files asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", default=",".join(ORIGINALS), help="names, joined by commas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only.split(","):
        arrays = record(name, arguments.seed)
        np.savez_compressed(arguments.out / f"{name}.npz", **arrays)
        sys.stdout.write(f"{name}: {CASES} cases\n")


if __name__ == "__main__":
    main()
