"""What is recorded from MXNet: a table of its algorithms and of the values drawn for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

Json = Any

LEFT_OUT: Any = ...
"""As a value of an argument: it is not given, so MXNet's default holds."""

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
SLOW_RATES = (0.002, 0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True)
class Recording:
    """What one file holds: an algorithm, and how its cases are drawn.

    Attributes:
        cls: MXNet's class.
        slots: names of the members of its state, in MXNet's order.
        own: the values drawn for each of its own arguments.
        fixed: arguments that all cases share.
        mxnet: the version it is recorded from.
        rates: the learning rates drawn.
        default_rate: the class has a default learning rate that overrules a scheduler's.
        zero_rate: a learning rate of zero leaves its numbers finite.
        gradients: the kinds of gradient drawn.
        decays: weight decay is drawn.
        master_last: under multi_precision the float32 weight follows the inner state.
        lists: half of the cases update all weights in one call.
        mixed: a multi_precision case may hold a float32 weight as well.
        count: number of cases.
        max_weights: weights a case has at most.
        ranks: the ranks of the weights.
        sparse: the gradients are row sparse.
        weight_stypes: the storage types drawn for the weights.
    """

    cls: str
    slots: tuple[str, ...] = ()
    own: dict[str, tuple[Json, ...]] = field(default_factory=dict)
    fixed: dict[str, Json] = field(default_factory=dict)
    mxnet: str = "1.9.1"
    rates: tuple[float, ...] = RATES
    default_rate: bool = False
    zero_rate: bool = True
    gradients: tuple[str, ...] = ("normal", "zeros", "large")
    decays: bool = True
    master_last: bool = False
    lists: bool = False
    mixed: bool = True
    count: int = 12
    max_weights: int = 4
    ranks: tuple[int, ...] = (1, 2, 3, 4)
    sparse: bool = False
    weight_stypes: tuple[str, ...] = ("default",)


_MOMENTUM = (LEFT_OUT, 0.9, 0.5)
_BETA1 = (LEFT_OUT, 0.8, 0.5)
_BETA2 = (LEFT_OUT, 0.99, 0.9)
_EPSILON = (LEFT_OUT, 1e-8, 1e-6, 1e-4, 1e-3)
_BETAS = {"beta1": _BETA1, "beta2": _BETA2}
_BOUNDS = {"lower_bound": (LEFT_OUT, 0.1, 2.0), "upper_bound": (LEFT_OUT, 2.5, 5.0)}
_RMSPROP = {
    "gamma1": (LEFT_OUT, 0.95, 0.8),
    "epsilon": _EPSILON,
    "clip_weights": (LEFT_OUT, LEFT_OUT, 0.5, 1.5),
}

_SGD = Recording("SGD", ("mom",), {"momentum": _MOMENTUM}, master_last=True, lists=True)
_LARS = Recording(
    "LARS",
    ("mom",),
    {
        "momentum": (0.9, LEFT_OUT, 0.5),
        "eta": (LEFT_OUT, 0.01, 0.1),
        "eps": (LEFT_OUT, 1e-6, 1e-3),
        "momentum_correction": (LEFT_OUT, False),
    },
    master_last=True,
    lists=True,
    mixed=False,
)
_ADAM = Recording(
    "Adam",
    ("mean", "var"),
    {**_BETAS, "epsilon": _EPSILON},
    rates=SLOW_RATES,
    default_rate=True,
)
_ADAGRAD = Recording("AdaGrad", ("history",), {"eps": _EPSILON})
_GROUP_ADAGRAD = Recording(
    "GroupAdaGrad", ("history",), {"eps": _EPSILON}, decays=False, ranks=(2,)
)
_FTRL = Recording(
    "Ftrl",
    ("z", "n"),
    {"lamda1": (LEFT_OUT, 0.1, 0.001), "beta": (LEFT_OUT, 0.5, 2.0)},
    default_rate=True,
    zero_rate=False,
)
_DCASGD = Recording(
    "DCASGD",
    ("mom", "previous_weight"),
    rates=(0.01, 0.02, 0.05, 0.1),
    gradients=("normal", "zeros"),  # It squares them: large ones blow its weights up.
)
_LAZY = {"lazy_update": (LEFT_OUT, False)}


def _row_sparse(of: Recording, **changes: Any) -> Recording:
    """The recording of the same algorithm with row-sparse gradients."""
    changes = {"count": 8, "lists": False, "ranks": (2, 3), **changes}
    own = {**of.own, **changes.pop("own", {})}
    return replace(of, own=own, sparse=True, gradients=("normal", "large"), **changes)


RECORDINGS: dict[str, tuple[Recording, ...]] = {
    "sgd": (_SGD,),
    "ccsgd": (replace(_SGD, cls="ccSGD"),),
    "nag": (replace(_SGD, cls="NAG", lists=False),),
    "signum": (
        Recording(
            "Signum",
            ("mom",),
            {"momentum": (LEFT_OUT, 0.0, 0.5), "wd_lh": (LEFT_OUT, 0.01, 0.1)},
            default_rate=True,
        ),
    ),
    "sgld": (Recording("SGLD", zero_rate=False),),
    "dcasgd": (replace(_DCASGD, own={"lamda": (LEFT_OUT, 0.5, 0.0, 0.2)}),),
    "dcasgd_momentum": (
        replace(
            _DCASGD,
            own={
                "momentum": (0.9, 0.5),
                "lamda": (LEFT_OUT, 0.5, 0.2),
                "learning_rate": (0.01, 0.05, 0.1),  # 2.x has another default.
            },
            mxnet="2.0.0b1",
            default_rate=True,
            decays=False,
        ),
    ),
    "lbsgd": (
        Recording(
            "LBSGD",
            ("mom",),
            {
                "momentum": _MOMENTUM,
                "warmup_strategy": (LEFT_OUT, "linear", "power2", "sqrt", "lars"),
                "warmup_epochs": (2, LEFT_OUT, 1),
                "batch_scale": (2, 3, LEFT_OUT, 4),
                "updates_per_epoch": (4, 6, LEFT_OUT),
                "begin_epoch": (LEFT_OUT, LEFT_OUT, 1),
                "num_epochs": (LEFT_OUT, 30),
            },
            rates=(0.01, 0.02, 0.05, 0.1),
        ),
    ),
    "lars": (_LARS,),
    "lamb": (
        Recording(
            "LAMB",
            ("mean", "var"),
            {**_BETAS, "epsilon": _EPSILON, **_BOUNDS, "bias_correction": (LEFT_OUT, False)},
            rates=SLOW_RATES,
            default_rate=True,
            lists=True,
        ),
    ),
    "lans": (
        Recording(
            "LANS",
            ("mean", "var"),
            {**_BETAS, "epsilon": _EPSILON, **_BOUNDS},
            mxnet="2.0.0b1",
            rates=SLOW_RATES,
            default_rate=True,
            gradients=("normal", "some zeros", "large"),
            lists=True,
        ),
    ),
    "adam": (_ADAM,),
    "adamw": (
        replace(
            _ADAM,
            cls="AdamW",
            own={**_ADAM.own, "correct_bias": (LEFT_OUT, False)},
            mxnet="2.0.0b1",
            lists=True,
        ),
    ),
    "adabelief": (
        replace(
            _ADAM,
            cls="AdaBelief",
            own={**_ADAM.own, "correct_bias": (LEFT_OUT, False)},
            mxnet="2.0.0b1",
            lists=True,
        ),
    ),
    "adamax": (
        replace(
            _ADAM,
            cls="Adamax",
            slots=("mean", "inf_norm"),
            own=_BETAS,
            gradients=("normal", "late zeros", "large"),
        ),
    ),
    "nadam": (
        replace(
            _ADAM,
            cls="Nadam",
            own={**_ADAM.own, "schedule_decay": (LEFT_OUT, 0.01, 0.5)},
            max_weights=1,
        ),
    ),
    "ftml": (
        Recording(
            "FTML",
            ("d", "v", "z"),
            {"beta1": (LEFT_OUT, 0.5, 0.9), "beta2": _BETA2, "epsilon": _EPSILON},
            rates=SLOW_RATES,
            zero_rate=False,
        ),
    ),
    "adagrad": (_ADAGRAD,),
    "groupadagrad": (_GROUP_ADAGRAD,),
    "adadelta": (
        Recording(
            "AdaDelta",
            ("acc_g", "acc_delta"),
            {"rho": (LEFT_OUT, 0.95, 0.8), "epsilon": _EPSILON},
        ),
    ),
    "rmsprop": (
        Recording("RMSProp", ("n",), _RMSPROP, rates=SLOW_RATES, default_rate=True),
        Recording(
            "RMSProp",
            ("n", "g", "delta"),
            {**_RMSPROP, "gamma2": (LEFT_OUT, 0.5, 0.8)},
            {"centered": True},
            rates=SLOW_RATES,
            default_rate=True,
        ),
    ),
    "ftrl": (_FTRL,),
    "test": (Recording("Test", ("weight",)),),
    "sgd_rowsparse": (_row_sparse(_SGD, own=_LAZY),),
    "adam_rowsparse": (_row_sparse(_ADAM, own=_LAZY),),
    "lars_rowsparse": (_row_sparse(_LARS, own={**_LAZY, "eta": (0.1, LEFT_OUT, 0.5)}),),
    "adagrad_rowsparse": (_row_sparse(_ADAGRAD, decays=False),),
    "groupadagrad_rowsparse": (_row_sparse(_GROUP_ADAGRAD, ranks=(2,)),),
    "ftrl_rowsparse": (_row_sparse(_FTRL, count=12, weight_stypes=("default", "row_sparse")),),
}
