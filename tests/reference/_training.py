"""What is trained, saved in the middle and trained on: a table of algorithms and cases.

Standard library only: it is read by the tests and inside MXNet's own environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STEPS = 50
"""Updates before the files are saved, and after."""

SHAPES = ((4, 3), (3,), (2, 3, 2))
NAMES = {0: "fc_weight", 1: "fc_bias", 2: "conv_weight"}

SCHEDULERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("FactorScheduler", {"step": 15, "factor": 0.7, "stop_factor_lr": 0.002}),
    ("MultiFactorScheduler", {"step": [20, 60, 90], "factor": 0.5}),
    ("PolyScheduler", {"max_update": 95, "final_lr": 0.001, "warmup_steps": 5}),
    ("CosineScheduler", {"max_update": 120, "final_lr": 0.001, "warmup_steps": 60}),
)


@dataclass(frozen=True)
class Case:
    """One way to train, the same for all algorithms.

    Attributes:
        name: its name in the files.
        dump: the optimizer is saved with the states; else it is made anew afterwards.
        half: float16 weights with float32 masters.
        begin: begin_num_update.
        multipliers: names and multipliers are set.
        scheduled: with a schedule.
        bounded: with decay, clipping and rescaling.
    """

    name: str
    dump: bool
    half: bool = False
    begin: int = 0
    multipliers: bool = False
    scheduled: bool = False
    bounded: bool = False


CASES = (
    Case("plain", dump=True),
    Case("rich", dump=True, begin=7, multipliers=True, scheduled=True, bounded=True),
    Case("bare", dump=False, bounded=True),
    Case("half", dump=True, half=True, multipliers=True, bounded=True),
    Case("half_bare", dump=False, half=True),
)


@dataclass(frozen=True)
class Training:
    """How one algorithm is trained.

    Attributes:
        cls: MXNet's class.
        own: its own arguments.
        rate: its learning rate.
        mxnet: the version it is recorded from.
        scheduler: which of the schedules; None for none.
        weights: how many of the weights there are.
        decays: it has weight decay.
        half: it has float16 weights with masters.
    """

    cls: str
    own: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.05
    mxnet: str = "1.9.1"
    scheduler: int | None = 0
    weights: int = 3
    decays: bool = True
    half: bool = True
    lr_mult: tuple[tuple[Any, float], ...] = (("fc_weight", 0.5), (1, 2.0))
    wd_mult: tuple[tuple[Any, float], ...] = (("fc_weight", 2.0),)

    def kwargs(self, case: Case) -> dict[str, Any]:
        """The arguments of the optimizer of one case, with the schedule's own."""
        kwargs: dict[str, Any] = {**self.own, "learning_rate": self.rate}
        if case.half:
            kwargs["multi_precision"] = True
        if case.multipliers:
            kwargs["param_idx2name"] = {k: NAMES[k] for k in range(self.weights)}
        if case.bounded:
            kwargs |= {"rescale_grad": 0.5, "clip_gradient": 0.4}
            if self.decays:
                kwargs["wd"] = 0.01
        if case.scheduled and self.scheduler is not None:
            name, arguments = SCHEDULERS[self.scheduler]
            kwargs["lr_scheduler"] = (name, {**arguments, "base_lr": self.rate})
        return kwargs

    def meta(self, version: str) -> dict[str, Any]:
        """What a recording says of itself."""
        return {"mxnet": version, "class": self.cls, "steps": STEPS}


TRAININGS = {
    "sgd": Training("SGD", scheduler=0),
    "sgd_momentum": Training("SGD", {"momentum": 0.9}, 0.01, scheduler=1),
    "ccsgd": Training("ccSGD", {"momentum": 0.5}, scheduler=2),
    "nag": Training("NAG", {"momentum": 0.9}, 0.01, scheduler=3),
    "nag_plain": Training("NAG", scheduler=0),
    "signum": Training("Signum", {"momentum": 0.9, "wd_lh": 0.01}, 0.01, scheduler=1),
    "signum_plain": Training("Signum", {"momentum": 0.0}, 0.01, scheduler=2),
    "dcasgd": Training("DCASGD", {"lamda": 0.1}, scheduler=0),
    "lbsgd": Training(
        "LBSGD", {"momentum": 0.9, "batch_scale": 3}, 0.01, scheduler=None, weights=1
    ),
    "lars": Training("LARS", {"momentum": 0.9, "eta": 0.05}, scheduler=1),
    "lamb": Training("LAMB", scheduler=2),
    "lamb_bounded": Training("LAMB", {"lower_bound": 0.1, "upper_bound": 2.0}, scheduler=3),
    "adam": Training("Adam", {"beta1": 0.8}, scheduler=3),
    "adamax": Training("Adamax", scheduler=0),
    "nadam": Training("Nadam", scheduler=1, weights=1),
    "ftml": Training("FTML", scheduler=2),
    "adagrad": Training("AdaGrad", {"eps": 1e-6}, scheduler=3),
    "groupadagrad": Training("GroupAdaGrad", scheduler=0, weights=1, decays=False),
    "adadelta": Training("AdaDelta", {"rho": 0.95}, scheduler=1),
    "rmsprop": Training("RMSProp", {"gamma1": 0.95}, scheduler=2),
    "rmsprop_centered": Training("RMSProp", {"centered": True, "gamma2": 0.5}, scheduler=3),
    "ftrl": Training("Ftrl", {"lamda1": 0.02}, scheduler=0),
    "test": Training("Test", scheduler=None),
    "adamw": Training(
        "AdamW", mxnet="2.0.0b1", scheduler=1, wd_mult=(("fc_weight", 2.0), ("fc_bias", 0.0))
    ),
    "adabelief": Training("AdaBelief", mxnet="2.0.0b1", scheduler=2, wd_mult=(("fc_bias", 0.0),)),
    "lans": Training("LANS", mxnet="2.0.0b1", scheduler=3, wd_mult=(("fc_bias", 0.0),)),
}
