"""mxnet.optimizer: stateful optimizers under MXNet's names and signatures.

A program written for MXNet changes its import, and takes back what `update` and the updater
return. Each class is an `Optimizer` around the definition of the same name at the top of the
package, which has the mathematics and the hyperparameters; the arguments that all share are those
of `Optimizer`. States are named tuples in MXNet's order.
"""

from typing import Any, Literal, Unpack

from jaxmxopt._core.definition import Unasked
from jaxmxopt._stateful.optimizer import Optimizer as Optimizer
from jaxmxopt._stateful.signatures import (
    Common,
    CommonBesideLazy,
    RestAndPrecision,
    RestAndRate,
    RestBesideLazy,
    stateful,
)
from jaxmxopt._stateful.updater import Updater as Updater
from jaxmxopt._stateful.updater import get_updater as get_updater

__all__ = [
    "DCASGD",
    "FTML",
    "LAMB",
    "LANS",
    "LARS",
    "LBSGD",
    "NAG",
    "SGD",
    "SGLD",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "GroupAdaGrad",
    "Nadam",
    "Optimizer",
    "RMSProp",
    "Signum",
    "Test",
    "Updater",
    "ccSGD",
    "contrib",
    "create",
    "get_updater",
    "register",
]

create = Optimizer.create_optimizer
register = Optimizer.register

Strategy = Literal["linear", "power2", "sqrt", "lars"]


@stateful
class SGD(Optimizer):
    """Stateful `jaxmxopt.SGD`; state `(mom,)`, or `()` without momentum."""

    momentum: float
    lazy_update: bool

    def __init__(
        self, momentum: float = 0.0, lazy_update: bool = True, **common: Unpack[CommonBesideLazy]
    ) -> None: ...


@stateful
class ccSGD(Optimizer):
    """Stateful `jaxmxopt.ccSGD`; state `(mom,)`, or `()` without momentum."""

    momentum: float
    lazy_update: bool

    def __init__(
        self, momentum: float = 0.0, lazy_update: bool = True, **common: Unpack[CommonBesideLazy]
    ) -> None: ...


@stateful
class NAG(Optimizer):
    """Stateful `jaxmxopt.NAG`; state `(mom,)`, or `()` without momentum."""

    momentum: float

    def __init__(self, momentum: float = 0.0, **common: Unpack[Common]) -> None: ...


@stateful
class Signum(Optimizer):
    """Stateful `jaxmxopt.Signum`; state `(mom,)`, or `()` without momentum."""

    momentum: float
    wd_lh: float

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.01),
        momentum: float = 0.9,
        wd_lh: float = 0.0,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class SGLD(Optimizer):
    """Stateful `jaxmxopt.SGLD`; state `(key,)`."""

    seed: int

    def __init__(self, *, seed: int = 0, **common: Unpack[Common]) -> None: ...


@stateful
class DCASGD(Optimizer):
    """Stateful `jaxmxopt.DCASGD`; state `(mom, previous_weight)`, `mom` None without momentum."""

    momentum: float
    lamda: float

    def __init__(
        self, momentum: float = 0.0, lamda: float = 0.04, **common: Unpack[Common]
    ) -> None: ...


@stateful
class LBSGD(Optimizer):
    """Stateful `jaxmxopt.LBSGD`; state `(mom, cum_grad, num_cums)`, `mom` None without momentum."""

    momentum: float
    warmup_strategy: Strategy
    warmup_epochs: int
    batch_scale: int
    updates_per_epoch: int
    begin_epoch: int
    num_epochs: int

    def __init__(
        self,
        momentum: float = 0.0,
        multi_precision: bool = False,
        warmup_strategy: Strategy = "linear",
        warmup_epochs: int = 5,
        batch_scale: int = 1,
        updates_per_epoch: int = 32,
        begin_epoch: int = 0,
        num_epochs: int = 60,
        **common: Unpack[RestAndRate],
    ) -> None: ...


@stateful
class LARS(Optimizer):
    """Stateful `jaxmxopt.LARS`; state `(mom, last_lr)`, or `()` without momentum."""

    momentum: float
    lazy_update: bool
    eta: float
    eps: float
    momentum_correction: bool

    def __init__(
        self,
        momentum: float = 0.0,
        lazy_update: bool = True,
        eta: float = 0.001,
        eps: float = 0,
        momentum_correction: bool = True,
        **common: Unpack[CommonBesideLazy],
    ) -> None: ...


@stateful
class LAMB(Optimizer):
    """Stateful `jaxmxopt.LAMB`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    lower_bound: float | None
    upper_bound: float | None
    bias_correction: bool

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.001),
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        bias_correction: bool = True,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class LANS(Optimizer):
    """Stateful `jaxmxopt.LANS`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    lower_bound: float | None
    upper_bound: float | None

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.001),
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class Adam(Optimizer):
    """Stateful `jaxmxopt.Adam`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    lazy_update: bool

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.001),
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        lazy_update: bool = True,
        **common: Unpack[RestBesideLazy],
    ) -> None: ...


@stateful
class AdamW(Optimizer):
    """Stateful `jaxmxopt.AdamW`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    correct_bias: bool

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.001),
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        correct_bias: bool = True,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class AdaBelief(Optimizer):
    """Stateful `jaxmxopt.AdaBelief`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    correct_bias: bool

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.001),
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        correct_bias: bool = True,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class Adamax(Optimizer):
    """Stateful `jaxmxopt.Adamax`; state `(mean, inf_norm)`."""

    beta1: float
    beta2: float

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.002),
        beta1: float = 0.9,
        beta2: float = 0.999,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class Nadam(Optimizer):
    """Stateful `jaxmxopt.Nadam`; state `(mean, var, m_schedule)`."""

    beta1: float
    beta2: float
    epsilon: float
    schedule_decay: float

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.001),
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        schedule_decay: float = 0.004,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class FTML(Optimizer):
    """Stateful `jaxmxopt.FTML`; state `(d, v, z)`."""

    beta1: float
    beta2: float
    epsilon: float

    def __init__(
        self,
        beta1: float = 0.6,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **common: Unpack[Common],
    ) -> None: ...


@stateful
class AdaGrad(Optimizer):
    """Stateful `jaxmxopt.AdaGrad`; state `(history,)`."""

    eps: float

    def __init__(self, eps: float = 1e-7, **common: Unpack[Common]) -> None: ...


@stateful
class GroupAdaGrad(Optimizer):
    """Stateful `jaxmxopt.GroupAdaGrad`; state `(history,)`, one number a row."""

    eps: float

    def __init__(self, eps: float = 1e-5, **common: Unpack[Common]) -> None: ...


@stateful
class AdaDelta(Optimizer):
    """Stateful `jaxmxopt.AdaDelta`; state `(acc_g, acc_delta)`."""

    rho: float
    epsilon: float

    def __init__(
        self, rho: float = 0.90, epsilon: float = 1e-5, **common: Unpack[Common]
    ) -> None: ...


@stateful
class RMSProp(Optimizer):
    """Stateful `jaxmxopt.RMSProp`; state `(n,)`, or `(n, g, delta)` where `centered`."""

    gamma1: float
    gamma2: float
    epsilon: float
    centered: bool
    clip_weights: float | None

    def __init__(
        self,
        learning_rate: float | None = Unasked(0.001),
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        epsilon: float = 1e-8,
        centered: bool = False,
        clip_weights: float | None = None,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class Ftrl(Optimizer):
    """Stateful `jaxmxopt.Ftrl`; state `(z, n)`."""

    lamda1: float
    beta: float

    def __init__(
        self,
        lamda1: float = 0.01,
        learning_rate: float | None = Unasked(0.1),
        beta: float = 1,
        **common: Unpack[RestAndPrecision],
    ) -> None: ...


@stateful
class Test(Optimizer):
    """Stateful `jaxmxopt.Test`; state `(weight,)`. Counts nothing, as in MXNet."""

    # Not a test, whatever its name begins with.
    __test__ = False

    def __init__(self, **common: Unpack[Common]) -> None: ...

    def _update_count(self, index: Any) -> None:
        del index


class contrib:
    """mxnet.optimizer.contrib."""

    GroupAdaGrad = GroupAdaGrad
