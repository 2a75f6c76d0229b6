"""Apache MXNet's optimizers, whole, on JAX."""

import importlib as _importlib
import typing as _typing

from jaxmxopt._algorithms import DCASGD as DCASGD
from jaxmxopt._algorithms import FTML as FTML
from jaxmxopt._algorithms import LAMB as LAMB
from jaxmxopt._algorithms import LANS as LANS
from jaxmxopt._algorithms import LARS as LARS
from jaxmxopt._algorithms import LBSGD as LBSGD
from jaxmxopt._algorithms import NAG as NAG
from jaxmxopt._algorithms import SGD as SGD
from jaxmxopt._algorithms import SGLD as SGLD
from jaxmxopt._algorithms import SOAP as SOAP
from jaxmxopt._algorithms import AdaBelief as AdaBelief
from jaxmxopt._algorithms import AdaDelta as AdaDelta
from jaxmxopt._algorithms import Adafactor as Adafactor
from jaxmxopt._algorithms import AdaGrad as AdaGrad
from jaxmxopt._algorithms import Adam as Adam
from jaxmxopt._algorithms import Adamax as Adamax
from jaxmxopt._algorithms import AdamW as AdamW
from jaxmxopt._algorithms import AdEMAMix as AdEMAMix
from jaxmxopt._algorithms import BERTAdam as BERTAdam
from jaxmxopt._algorithms import Ftrl as Ftrl
from jaxmxopt._algorithms import GroupAdaGrad as GroupAdaGrad
from jaxmxopt._algorithms import Lion as Lion
from jaxmxopt._algorithms import Muon as Muon
from jaxmxopt._algorithms import Nadam as Nadam
from jaxmxopt._algorithms import RAdam as RAdam
from jaxmxopt._algorithms import RMSProp as RMSProp
from jaxmxopt._algorithms import ScheduleFreeAdamW as ScheduleFreeAdamW
from jaxmxopt._algorithms import ScheduleFreeSGD as ScheduleFreeSGD
from jaxmxopt._algorithms import Signum as Signum
from jaxmxopt._algorithms import Test as Test
from jaxmxopt._algorithms import ccSGD as ccSGD
from jaxmxopt._core import __version__ as __version__
from jaxmxopt._core.algorithm import OptimizerDef as OptimizerDef
from jaxmxopt._core.config import nearest as _nearest
from jaxmxopt._core.embedding import value_and_row_grad as value_and_row_grad
from jaxmxopt._core.sparse import RowSparse as RowSparse
from jaxmxopt._core.state import State as State
from jaxmxopt._stateful.optimizer import Optimizer as Optimizer
from jaxmxopt._stateful.trainer import Trainer as Trainer
from jaxmxopt._stateful.updater import Updater as Updater
from jaxmxopt._stateful.updater import get_updater as get_updater
from jaxmxopt._wrappers.accumulate import Accumulate as Accumulate
from jaxmxopt._wrappers.averages import averaged as averaged
from jaxmxopt._wrappers.cautious import Cautious as Cautious
from jaxmxopt._wrappers.clip import ClipGlobalNorm as ClipGlobalNorm
from jaxmxopt._wrappers.ema import EMA as EMA
from jaxmxopt._wrappers.groups import Groups as Groups
from jaxmxopt._wrappers.groups import by_kind as by_kind
from jaxmxopt._wrappers.prodigy import Prodigy as Prodigy
from jaxmxopt.optimizer import create as create

if _typing.TYPE_CHECKING:
    from jaxmxopt import algorithm as algorithm
    from jaxmxopt import amp as amp
    from jaxmxopt import checkpoint as checkpoint
    from jaxmxopt import interop as interop
    from jaxmxopt import lr_scheduler as lr_scheduler
    from jaxmxopt import mxnet_files as mxnet_files
    from jaxmxopt import ops as ops
    from jaxmxopt import optimizer as optimizer
    from jaxmxopt import sharding as sharding
else:
    _MODULES = frozenset(
        (
            *("algorithm", "amp", "checkpoint", "interop", "lr_scheduler"),
            *("mxnet_files", "ops", "optimizer", "sharding"),
        )
    )

    def __getattr__(name):
        """Import a module when it is first asked for."""
        if name in _MODULES:
            return _importlib.import_module(f"jaxmxopt.{name}")
        hint = "" if name.startswith("_") else _nearest(name, globals(), at_least=0.7)
        raise AttributeError(f"module 'jaxmxopt' has no attribute {name!r}{hint}")
