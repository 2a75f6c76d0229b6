"""Training that MXNet saved in the middle, as recorded: for the tests that go on with it.

    XLA_FLAGS=--xla_cpu_max_isa=AVX python tests/mxnet_training.py CASE...

says of which weights some element differs from MXNet's at the end.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from reference._training import CASES, STEPS, TRAININGS, Case, Training

import jaxmxopt
from jaxmxopt import lr_scheduler
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.updater import Updater
from jaxmxopt.mxnet_files import load_params

__all__ = [
    "CASES",
    "FILES",
    "RECORDED",
    "STEPS",
    "TRAININGS",
    "Middle",
    "case_named",
    "optimizer_of",
]

FILES = Path(__file__).parent / "reference" / "files"


RECORDED = [
    (name, case.name)
    for name, training in TRAININGS.items()
    for case in CASES
    if training.half or not case.half
]


def case_named(name: str) -> Case:
    """The case of this name."""
    return next(case for case in CASES if case.name == name)


def optimizer_of(training: Training, case: Case, begin: int) -> Optimizer:
    """The optimizer that MXNet trained with, made anew."""
    kwargs = {**training.kwargs(case), "begin_num_update": begin}
    schedule = kwargs.pop("lr_scheduler", None)
    if schedule is not None:
        del kwargs["learning_rate"]
        kwargs["lr_scheduler"] = getattr(lr_scheduler, schedule[0])(**schedule[1])
    if case.multipliers:
        kwargs |= {"lr_mult": dict(training.lr_mult), "wd_mult": dict(training.wd_mult)}
    return Optimizer(getattr(jaxmxopt, training.cls)(**kwargs))


class Middle:
    """A training as it was saved, and how it went on.

    Attributes:
        weights: when it was saved.
        grads: of the steps after, by weight.
        expected: the weights at the end.
        states: the bytes of the `.states` file.
    """

    def __init__(self, name: str, case: str) -> None:
        self.training, self.case = TRAININGS[name], case_named(case)
        with np.load(FILES / "training" / f"{name}.npz") as file:
            params = load_params(file[f"{case}/params"].tobytes())
            indices = range(len(params))
            self.weights: list[Any] = [params[str(k)] for k in indices]
            self.grads = [file[f"{case}/grad/{k}"] for k in indices]
            self.expected = [file[f"{case}/weight/{k}"] for k in indices]
            self.states = file[f"{case}/states"].tobytes()

    def updater(self) -> Updater:
        """An updater that has loaded the file; as in MXNet it needs the optimizer if that lacks."""
        begin = self.case.begin + STEPS
        made = Optimizer(jaxmxopt.SGD())
        if not self.case.dump:
            made = optimizer_of(self.training, self.case, begin)
        updater = Updater(made)
        updater.set_states(self.states)
        return updater

    def train(self, updater: Updater, weights: list[Any], steps: Iterable[int]) -> list[Any]:
        """Trains some of the recorded steps; returns the new weights."""
        for step in steps:
            grads = [jnp.asarray(grad[step]) for grad in self.grads]
            weights = updater(list(range(len(grads))), grads, weights)
        return weights


def main() -> None:
    """Trains all recorded cases of the given names."""
    different: dict[str, float] = {}
    for name, case in RECORDED:
        if case not in sys.argv[1:]:
            continue
        middle = Middle(name, case)
        found = middle.train(middle.updater(), middle.weights, range(STEPS))
        for k, (weight, expected) in enumerate(zip(found, middle.expected, strict=True)):
            off = np.abs(np.asarray(weight, np.float64) - expected.astype(np.float64))
            if off.any():
                different[f"{name}/{case}/{k}"] = float(off.max())
    sys.stdout.write(json.dumps(different))


if __name__ == "__main__":
    main()
