"""Signatures of the classes of mxnet.optimizer, for editors and type checkers.

Made from the table in `_stateful/classes.py` by `tests/stub_of_optimizers.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxmxopt._stateful.optimizer import Optimizer as Optimizer
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
    "BERTAdam",
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

class SGD(Optimizer):
    """Stateful `jaxmxopt.SGD`; state `(mom,)`, or `()` without momentum."""

    momentum: float
    lazy_update: bool
    def __init__(
        self,
        momentum: float = 0.0,
        lazy_update: bool = True,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
    ) -> None: ...

class ccSGD(Optimizer):
    """Stateful `jaxmxopt.ccSGD`; state `(mom,)`, or `()` without momentum."""

    momentum: float
    lazy_update: bool
    def __init__(
        self,
        momentum: float = 0.0,
        lazy_update: bool = True,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
    ) -> None: ...

class NAG(Optimizer):
    """Stateful `jaxmxopt.NAG`; state `(mom,)`, or `()` without momentum."""

    momentum: float
    lazy_update: bool
    def __init__(
        self,
        momentum: float = 0.0,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class Signum(Optimizer):
    """Stateful `jaxmxopt.Signum`; state `(mom,)`, or `()` without momentum."""

    momentum: float
    wd_lh: float
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.01,
        momentum: float = 0.9,
        wd_lh: float = 0.0,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class SGLD(Optimizer):
    """Stateful `jaxmxopt.SGLD`; state `(key,)`."""

    seed: int
    lazy_update: bool
    def __init__(
        self,
        *,
        seed: int = 0,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class DCASGD(Optimizer):
    """Stateful `jaxmxopt.DCASGD`; state `(mom, previous_weight)`, `mom` None without momentum."""

    momentum: float
    lamda: float
    lazy_update: bool
    def __init__(
        self,
        momentum: float = 0.0,
        lamda: float = 0.04,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class LBSGD(Optimizer):
    """Stateful `jaxmxopt.LBSGD`; state `(mom, cum_grad, num_cums)`, `mom` None without momentum."""

    momentum: float
    warmup_strategy: Literal["linear", "power2", "sqrt", "lars"]
    warmup_epochs: int
    batch_scale: int
    updates_per_epoch: int
    begin_epoch: int
    num_epochs: int
    lazy_update: bool
    def __init__(
        self,
        momentum: float = 0.0,
        multi_precision: bool = False,
        warmup_strategy: Literal["linear", "power2", "sqrt", "lars"] = "linear",
        warmup_epochs: int = 5,
        batch_scale: int = 1,
        updates_per_epoch: int = 32,
        begin_epoch: int = 0,
        num_epochs: int = 60,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

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
        eps: float = 0.0,
        momentum_correction: bool = True,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
    ) -> None: ...

class LAMB(Optimizer):
    """Stateful `jaxmxopt.LAMB`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    lower_bound: float | None
    upper_bound: float | None
    bias_correction: bool
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-06,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        bias_correction: bool = True,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class LANS(Optimizer):
    """Stateful `jaxmxopt.LANS`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    lower_bound: float | None
    upper_bound: float | None
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-06,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class Adam(Optimizer):
    """Stateful `jaxmxopt.Adam`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-08,
        lazy_update: bool = True,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
    ) -> None: ...

class AdamW(Optimizer):
    """Stateful `jaxmxopt.AdamW`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    correct_bias: bool
    standard: bool
    nesterov: bool
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-06,
        correct_bias: bool = True,
        *,
        standard: bool = False,
        nesterov: bool = False,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class BERTAdam(Optimizer):
    """Stateful `jaxmxopt.BERTAdam`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    correct_bias: bool
    standard: bool
    nesterov: bool
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-06,
        *,
        correct_bias: bool = False,
        standard: bool = False,
        nesterov: bool = False,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class AdaBelief(Optimizer):
    """Stateful `jaxmxopt.AdaBelief`; state `(mean, var)`."""

    beta1: float
    beta2: float
    epsilon: float
    correct_bias: bool
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-06,
        correct_bias: bool = True,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class Adamax(Optimizer):
    """Stateful `jaxmxopt.Adamax`; state `(mean, inf_norm)`."""

    beta1: float
    beta2: float
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.002,
        beta1: float = 0.9,
        beta2: float = 0.999,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class Nadam(Optimizer):
    """Stateful `jaxmxopt.Nadam`; state `(mean, var, m_schedule)`."""

    beta1: float
    beta2: float
    epsilon: float
    schedule_decay: float
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-08,
        schedule_decay: float = 0.004,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class FTML(Optimizer):
    """Stateful `jaxmxopt.FTML`; state `(d, v, z)`."""

    beta1: float
    beta2: float
    epsilon: float
    lazy_update: bool
    def __init__(
        self,
        beta1: float = 0.6,
        beta2: float = 0.999,
        epsilon: float = 1e-08,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class AdaGrad(Optimizer):
    """Stateful `jaxmxopt.AdaGrad`; state `(history,)`."""

    eps: float
    lazy_update: bool
    def __init__(
        self,
        eps: float = 1e-07,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = True,
    ) -> None: ...

class GroupAdaGrad(Optimizer):
    """Stateful `jaxmxopt.GroupAdaGrad`; state `(history,)`, one number a row."""

    eps: float
    lazy_update: bool
    def __init__(
        self,
        eps: float = 1e-05,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = True,
    ) -> None: ...

class AdaDelta(Optimizer):
    """Stateful `jaxmxopt.AdaDelta`; state `(acc_g, acc_delta)`."""

    rho: float
    epsilon: float
    lazy_update: bool
    def __init__(
        self,
        rho: float = 0.9,
        epsilon: float = 1e-05,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class RMSProp(Optimizer):
    """Stateful `jaxmxopt.RMSProp`; state `(n,)`, or `(n, g, delta)` where `centered`."""

    gamma1: float
    gamma2: float
    epsilon: float
    centered: bool
    clip_weights: float | None
    lazy_update: bool
    def __init__(
        self,
        learning_rate: float | None = 0.001,
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        epsilon: float = 1e-08,
        centered: bool = False,
        clip_weights: float | None = None,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

class Ftrl(Optimizer):
    """Stateful `jaxmxopt.Ftrl`; state `(z, n)`."""

    lamda1: float
    beta: float
    lazy_update: bool
    def __init__(
        self,
        lamda1: float = 0.01,
        learning_rate: float | None = 0.1,
        beta: float = 1.0,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = True,
    ) -> None: ...

class Test(Optimizer):
    """Stateful `jaxmxopt.Test`; state `(weight,)`. Counts nothing, as in MXNet."""

    lazy_update: bool
    def __init__(
        self,
        *,
        rescale_grad: float = 1.0,
        param_idx2name: Mapping[Any, str] | None = None,
        wd: float = 0.0,
        clip_gradient: float | None = None,
        learning_rate: float | None = None,
        lr_scheduler: Callable[[Any], Any] | None = None,
        sym: Any = None,
        begin_num_update: int = 0,
        multi_precision: bool = False,
        param_dict: Mapping[Any, Any] | None = None,
        lazy_update: bool = False,
    ) -> None: ...

_GroupAdaGrad = GroupAdaGrad

class contrib:
    """mxnet.optimizer.contrib."""

    GroupAdaGrad = _GroupAdaGrad
