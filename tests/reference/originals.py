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
from unittest import mock

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
        lr_mult: the factor of the rate that one weight has in some cases.
        wd: cases with decay.
        inside: our algorithm inside that class, where the latter is a wrapper.
        begin: prepares their optimizer for training.
        settle: turns their weights into those to evaluate with, if they are others.
        shapes: of the weights.
    """

    ours: str
    theirs: str
    draw: Callable[[Draw], tuple[Options, Options]]
    rates: tuple[float, float] = (1e-3, 0.1)
    lr_mult: float = 0.5
    wd: bool = True
    inside: str | None = None
    begin: Callable[[Any], None] = lambda optimizer: None
    settle: Callable[[Any], None] | None = None
    shapes: Mapping[str, tuple[int, ...]] = SHAPES


def betas(draw: Draw) -> tuple[float, float]:
    """Decay rates of two moments, as float32 has them: a definition knows them no better."""
    return some(draw, 0.8, 0.9, 0.95), some(draw, 0.9, 0.99, 0.999)


def some(draw: Draw, *numbers: float) -> float:
    """One of some numbers, rounded to float32."""
    return float(np.float32(draw.choice(numbers)))


def lion(draw: Draw) -> tuple[Options, Options]:
    beta1, beta2 = betas(draw)
    return {"beta1": beta1, "beta2": beta2}, {"betas": (beta1, beta2)}


def moments(draw: Draw) -> tuple[Options, Options]:
    """What all of Adam's kind have."""
    (beta1, beta2), epsilon = betas(draw), some(draw, 1e-8, 1e-3)
    ours = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon}
    return ours, {"betas": (beta1, beta2), "eps": epsilon}


def adamw(draw: Draw) -> tuple[Options, Options]:
    ours, theirs = moments(draw)
    return {**ours, "standard": True}, theirs


def radam(draw: Draw) -> tuple[Options, Options]:
    (ours, theirs), decoupled = moments(draw), bool(draw.integers(2))
    return {**ours, "decoupled": decoupled}, {**theirs, "decoupled_weight_decay": decoupled}


def ademamix(draw: Draw) -> tuple[Options, Options]:
    ours, theirs = moments(draw)
    beta3, alpha = some(draw, 0.99, 0.9999), some(draw, 2, 5)
    warmup = some(draw, 5, 100) if draw.integers(2) else None
    ours |= {"beta3": beta3, "alpha": alpha, "warmup": warmup}
    theirs |= {"betas": (*theirs["betas"], beta3), "alpha": alpha, "t_alpha_beta3": warmup}
    return ours, {**theirs, "weight_decouple": True}


def weighted(draw: Draw) -> Options:
    """What the schedule-free ones have in common, under the same names."""
    powers = {"r": some(draw, 0, 0.5, 1), "weight_lr_power": some(draw, 0, 1, 2)}
    return {"warmup_steps": int(draw.choice([0, 4, 20])), **powers}


def free_sgd(draw: Draw) -> tuple[Options, Options]:
    both = {"momentum": some(draw, 0.5, 0.9, 0.95), **weighted(draw)}
    return both, both


def free_adamw(draw: Draw) -> tuple[Options, Options]:
    (ours, theirs), more = moments(draw), weighted(draw)
    return ours | more, theirs | more


def prodigy(draw: Draw) -> tuple[Options, Options]:
    ours, theirs = moments(draw)
    ours["correct_bias"] = bool(draw.integers(2))
    # From a small estimate the first differences of weights are nothing but rounding.
    more = {"d0": some(draw, 0.01, 0.1), "d_coef": some(draw, 0.5, 1, 2)}
    more |= {"safeguard_warmup": bool(draw.integers(2))}
    more |= {"growth_rate": some(draw, 1.05, 1.5)} if draw.integers(2) else {}
    more |= {"beta3": some(draw, 0.9, 0.99)} if draw.integers(2) else {}
    theirs["use_bias_correction"] = ours["correct_bias"]
    return {"inside": ours, **more}, theirs | more


def cautious(draw: Draw) -> tuple[Options, Options]:
    ours, theirs = lion(draw)
    return {"inside": ours}, {**theirs, "cautious": True}


def adafactor(draw: Draw) -> tuple[Options, Options]:
    exponent, threshold = float(draw.uniform(-0.9, -0.5)), float(draw.choice([1.0, 1.5, 3.0]))
    first, second = float(draw.choice([2.0**-23, 1e-4])), float(draw.choice([1e-3, 1e-2]))
    ours = {"beta2_decay": exponent, "clip_threshold": threshold}
    theirs = {"beta2_decay": exponent, "d": threshold, "eps": (first, second)}
    return {**ours, "epsilon1": first, "epsilon2": second}, theirs


def muon(draw: Draw) -> tuple[Options, Options]:
    momentum, nesterov = float(draw.choice([0.0, 0.9, 0.95])), bool(draw.random() < 0.5)
    # Few structures, as each is compiled.
    steps, scale = (5, "original") if nesterov else (3, "match_rms_adamw")
    if draw.random() < 0.3:
        steps, scale = 4, "original"
    a, b, c = ((3.4445, -4.775, 2.0315), (3.0, -3.2, 1.2))[int(draw.integers(2))]
    epsilon = float(draw.choice([1e-7, 1e-2]))
    same = {"momentum": momentum, "nesterov": nesterov}
    ours = {"a": a, "b": b, "c": c, "steps": steps, "scale": scale, "epsilon": epsilon}
    theirs = {"ns_coefficients": (a, b, c), "ns_steps": steps, "adjust_lr_fn": scale}
    # Weights of torch are outputs by inputs.
    return {**same, **ours, "matrices": "o i"}, {**same, **theirs, "eps": epsilon}


def in_float32(optimizer: Any) -> None:
    """Has torch's Muon iterate in the precision of the weights, not in bfloat16."""
    step = optimizer.step

    def precise() -> None:
        with mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone):
            step()

    optimizer.step = precise


def soap(draw: Draw) -> tuple[Options, Options]:
    beta1, beta2 = betas(draw)
    # Few structures, as each is compiled.
    frequency, own, longest, correct, normal = (
        (1, None, 100, True, False),
        (2, 0.9, 100, False, True),
        (3, 0.8, 3, True, False),
    )[int(draw.integers(3))]
    same = {"shampoo_beta": own, "precondition_frequency": frequency}
    ours = {"beta1": beta1, "beta2": beta2, "epsilon": 1e-6, "max_precondition_dim": longest}
    theirs = {"betas": (beta1, beta2), "eps": 1e-6, "max_precondition_dim": longest}
    return (
        {**same, **ours, "correct_bias": correct, "normalize_gradient": normal},
        {**same, **theirs, "correct_bias": correct, "normalize_gradient": normal},
    )


MATRICES = {"matrix": (4, 3), "wide": (3, 8), "tall": (9, 4)}
# At most one direction of a side sees no gradient at first: bases are arbitrary where more do.
NEARLY_SQUARE = {"matrix": (4, 3), "square": (3, 3), "vector": (5,), "scalar": ()}
ORIGINALS: Mapping[str, Original] = {
    "adafactor": Original("Adafactor", "torch.optim.Adafactor", adafactor),
    "muon": Original(
        "Muon", "torch.optim.Muon", muon, lr_mult=1.0, begin=in_float32, shapes=MATRICES
    ),
    "soap": Original("SOAP", "pytorch_optimizer.SOAP", soap, shapes=NEARLY_SQUARE),
    "lion": Original("Lion", "lion_pytorch.Lion", lion),
    "adamw": Original("AdamW", "torch.optim.AdamW", adamw),
    "radam": Original("RAdam", "torch.optim.RAdam", radam),
    "ademamix": Original("AdEMAMix", "pytorch_optimizer.AdEMAMix", ademamix),
    "schedulefreesgd": Original(
        "ScheduleFreeSGD",
        "schedulefree.SGDScheduleFree",
        free_sgd,
        begin=lambda optimizer: optimizer.train(),
        settle=lambda optimizer: optimizer.eval(),
    ),
    "schedulefreeadamw": Original(
        "ScheduleFreeAdamW",
        "schedulefree.AdamWScheduleFree",
        free_adamw,
        begin=lambda optimizer: optimizer.train(),
        settle=lambda optimizer: optimizer.eval(),
    ),
    # Theirs has one rate for all weights.
    "prodigy": Original(
        "Prodigy", "prodigyopt.Prodigy", prodigy, rates=(0.5, 1.0), lr_mult=1.0, inside="AdamW"
    ),
    # Theirs leaves decay out of what is cautious.
    "cautious": Original("Cautious", "pytorch_optimizer.Lion", cautious, wd=False, inside="Lion"),
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
    apart = number % 4 == 1
    one, another = list(original.shapes)[-2:]
    case = {
        "class": original.ours,
        "inside": original.inside,
        "kwargs": ours,
        "rates": rates,
        "wd": float(draw.choice([0.01, 0.1])) if original.wd and number % 2 else 0.0,
        "lr_mult": {one: original.lr_mult} if apart else {},
        "wd_mult": {one: 0.0, another: 2.0} if apart else {},
    }
    return case, theirs


def recorded(original: Original, case: Mapping[str, Any], theirs: Options, draw: Draw) -> Options:
    """Gradients and weights of all steps, by name."""
    weights = {
        name: np.asarray(draw.standard_normal(shape), np.float32)
        for name, shape in original.shapes.items()
    }
    params = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in weights.items()}
    optimizer = made(original, params, case, theirs)
    original.begin(optimizer)
    drift = {name: draw.standard_normal() for name in original.shapes}
    track: dict[str, list[Any]] = {f"weight/{name}": [w] for name, w in weights.items()}
    for step in range(STEPS):
        for (name, param), group in zip(params.items(), optimizer.param_groups, strict=True):
            shape = original.shapes[name]
            # As a gradient does, it has a direction; and some elements see none.
            grad = np.asarray(drift[name] + draw.standard_normal(shape), np.float32)
            grad = np.where(draw.random(shape) < 0.1, np.float32(0), grad)
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
