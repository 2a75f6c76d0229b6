"""One row for each algorithm: what the tests that run over all of them need to know."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import twins

import jaxmxopt as mxopt

Setting = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """What the tests know of an algorithm.

    Attributes:
        cls: its class.
        twin: its mathematics in float64 NumPy, see `twins`.
        settings: its own arguments in several valid ways, all of them off their defaults in one.
        files: recorded trajectories of MXNet, in `reference/data`; none if MXNet has no such class.
        whole: it needs the whole weight, so that row-sparse gradients act as dense ones.
        norms: norms of the whole weight are in it, so that it is equal to MXNet up to the order
            in which they are summed.
        lazy: `lazy_update` is True by default.
        decays: it has weight decay.
        random: it draws noise.
        rank: the rank that weights must have, None for any.
    """

    cls: Any
    twin: Callable[..., tuple[Any, dict[str, Any]]]
    settings: tuple[Setting, ...]
    files: tuple[str, ...] = ()
    whole: bool = False
    norms: bool = False
    lazy: bool = False
    decays: bool = True
    random: bool = False
    rank: int | None = None

    @property
    def name(self) -> str:
        return self.cls.__name__


_MOMENTUM = ({}, {"momentum": 0.7})
_BETAS = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}
_LARS = {"momentum": 0.7, "eta": 0.02, "eps": 1e-3}
_BOUNDS = {"lower_bound": 0.5, "upper_bound": 0.9}
_LBSGD = {"momentum": 0.7, "batch_scale": 3, "warmup_epochs": 2, "updates_per_epoch": 4}
_FREE = {"warmup_steps": 4.0, "r": 0.5, "weight_lr_power": 1.0}

_MUON = {"momentum": 0.7, "a": 3.0, "b": -3.2, "c": 1.2, "epsilon": 1e-3, "steps": 3}

CATALOGUE = (
    Row(
        mxopt.AdaBelief,
        twins.adabelief,
        ({}, _BETAS, {**_BETAS, "correct_bias": False}),
        ("adabelief",),
    ),
    Row(mxopt.AdaDelta, twins.adadelta, ({}, {"rho": 0.8, "epsilon": 1e-3}), ("adadelta",)),
    Row(
        mxopt.AdaGrad,
        twins.adagrad,
        ({}, {"eps": 1e-3}),
        ("adagrad", "adagrad_rowsparse"),
        lazy=True,
    ),
    Row(mxopt.Adam, twins.adam, ({}, _BETAS), ("adam", "adam_rowsparse"), lazy=True),
    Row(
        mxopt.AdamW,
        twins.adamw,
        (
            {},
            _BETAS,
            {**_BETAS, "correct_bias": False},
            {**_BETAS, "standard": True},
            {**_BETAS, "standard": True, "nesterov": True, "correct_bias": False},
        ),
        ("adamw",),
    ),
    Row(
        mxopt.AdEMAMix,
        twins.ademamix,
        ({}, {**_BETAS, "beta3": 0.99, "alpha": 2.0, "warmup": 4.0}),
    ),
    Row(
        mxopt.BERTAdam,
        twins.adamw,
        ({}, {**_BETAS, "correct_bias": True, "standard": True, "nesterov": True}),
    ),
    Row(mxopt.Adamax, twins.adamax, ({}, {"beta1": 0.8, "beta2": 0.95}), ("adamax",)),
    Row(
        mxopt.Adafactor,
        twins.adafactor,
        (
            {},
            {"beta2_decay": -0.7, "epsilon1": 1e-4, "epsilon2": 0.01, "clip_threshold": 0.8},
        ),
        whole=True,
        norms=True,
    ),
    Row(
        mxopt.DCASGD,
        twins.dcasgd,
        ({}, {"lamda": 0.5}, {"momentum": 0.7, "lamda": 0.1}),
        ("dcasgd", "dcasgd_momentum"),
    ),
    Row(mxopt.FTML, twins.ftml, ({}, {**_BETAS, "beta1": 0.5}), ("ftml",)),
    Row(
        mxopt.Ftrl,
        twins.ftrl,
        ({}, {"lamda1": 0.05, "beta": 0.8}),
        ("ftrl", "ftrl_rowsparse"),
        lazy=True,
    ),
    Row(
        mxopt.GroupAdaGrad,
        twins.group_adagrad,
        ({}, {"eps": 1e-3}),
        ("groupadagrad", "groupadagrad_rowsparse"),
        norms=True,
        lazy=True,
        decays=False,
        rank=2,
    ),
    Row(
        mxopt.LAMB,
        twins.lamb,
        ({}, {**_BETAS, **_BOUNDS}, {"bias_correction": False, "upper_bound": 0.5}),
        ("lamb",),
        whole=True,
        norms=True,
    ),
    Row(
        mxopt.LANS,
        twins.lans,
        ({}, {**_BETAS, **_BOUNDS}, {"lower_bound": 3.0}),
        ("lans",),
        whole=True,
        norms=True,
    ),
    Row(
        mxopt.LARS,
        twins.lars,
        ({}, _LARS, {**_LARS, "momentum_correction": False}),
        ("lars", "lars_rowsparse"),
        norms=True,
        lazy=True,
    ),
    Row(
        mxopt.LBSGD,
        twins.lbsgd,
        (
            {},
            _LBSGD,
            {**_LBSGD, "warmup_strategy": "power2", "begin_epoch": 1},
            {**_LBSGD, "warmup_strategy": "sqrt", "num_epochs": 3},
            {**_LBSGD, "warmup_strategy": "lars", "momentum": 0.0},
            {"batch_scale": 2, "warmup_epochs": 0},
        ),
        ("lbsgd",),
        whole=True,
        norms=True,
    ),
    Row(mxopt.Lion, twins.lion, ({}, {"beta1": 0.8, "beta2": 0.95})),
    Row(
        mxopt.Muon,
        twins.muon,
        (
            {},
            {**_MUON, "nesterov": False, "scale": "match_rms_adamw", "matrices": "o (2 i)"},
            {"scale": "none", "steps": 8, "matrices": "i o"},
            {"steps": 2, "matrices": "o i", "half": False},
        ),
        whole=True,
        norms=True,
        rank=2,
    ),
    Row(mxopt.NAG, twins.nag, _MOMENTUM, ("nag",)),
    Row(mxopt.Nadam, twins.nadam, ({}, {**_BETAS, "schedule_decay": 0.01}), ("nadam",)),
    Row(mxopt.RAdam, twins.radam, ({}, _BETAS, {**_BETAS, "decoupled": True})),
    Row(
        mxopt.RMSProp,
        twins.rmsprop,
        (
            {},
            {"gamma1": 0.8, "epsilon": 1e-3, "clip_weights": 1.2},
            {"centered": True},
            {"centered": True, "gamma1": 0.8, "gamma2": 0.7, "epsilon": 1e-3, "clip_weights": 1.2},
        ),
        ("rmsprop",),
    ),
    Row(mxopt.SGD, twins.sgd, _MOMENTUM, ("sgd", "sgd_rowsparse"), lazy=True),
    Row(mxopt.SGLD, twins.sgld, ({}, {"seed": 3}), ("sgld",), whole=True, random=True),
    Row(mxopt.ScheduleFreeAdamW, twins.schedule_free_adamw, ({}, {**_BETAS, **_FREE})),
    Row(mxopt.ScheduleFreeSGD, twins.schedule_free_sgd, ({}, {"momentum": 0.7, **_FREE})),
    Row(
        mxopt.SOAP,
        twins.soap,
        (
            {},
            {**_BETAS, "precondition_frequency": 2, "shampoo_beta": 0.7},
            {"normalize_gradient": True, "correct_bias": False, "precondition_frequency": 1},
            {"max_precondition_dim": 3},
        ),
        whole=True,
        norms=True,
    ),
    Row(
        mxopt.Signum,
        twins.signum,
        ({}, {"momentum": 0.7, "wd_lh": 0.01}, {"momentum": 0.0}, {"momentum": 0.0, "wd_lh": 0.01}),
        ("signum",),
    ),
    Row(mxopt.Test, twins.test, ({},), ("test",)),
    Row(mxopt.ccSGD, twins.sgd, _MOMENTUM, ("ccsgd",), lazy=True),
)
ROWS = {row.name: row for row in CATALOGUE}
