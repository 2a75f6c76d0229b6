"""Apache MXNet's optimizers, whole, on JAX."""

import importlib as _importlib
import typing as _typing

from jaxmxopt import _tree_optimizer as _tree_optimizer
from jaxmxopt._algorithms.adabelief import AdaBelief as AdaBelief
from jaxmxopt._algorithms.adadelta import AdaDelta as AdaDelta
from jaxmxopt._algorithms.adagrad import AdaGrad as AdaGrad
from jaxmxopt._algorithms.adam import Adam as Adam
from jaxmxopt._algorithms.adamax import Adamax as Adamax
from jaxmxopt._algorithms.adamw import AdamW as AdamW
from jaxmxopt._algorithms.ccsgd import ccSGD as ccSGD
from jaxmxopt._algorithms.dcasgd import DCASGD as DCASGD
from jaxmxopt._algorithms.ftml import FTML as FTML
from jaxmxopt._algorithms.ftrl import Ftrl as Ftrl
from jaxmxopt._algorithms.groupadagrad import GroupAdaGrad as GroupAdaGrad
from jaxmxopt._algorithms.lamb import LAMB as LAMB
from jaxmxopt._algorithms.lans import LANS as LANS
from jaxmxopt._algorithms.lars import LARS as LARS
from jaxmxopt._algorithms.lbsgd import LBSGD as LBSGD
from jaxmxopt._algorithms.nadam import Nadam as Nadam
from jaxmxopt._algorithms.nag import NAG as NAG
from jaxmxopt._algorithms.rmsprop import RMSProp as RMSProp
from jaxmxopt._algorithms.sgd import SGD as SGD
from jaxmxopt._algorithms.sgld import SGLD as SGLD
from jaxmxopt._algorithms.signum import Signum as Signum
from jaxmxopt._algorithms.test import Test as Test
from jaxmxopt._config import nearest as _nearest
from jaxmxopt._definition import OptimizerDef as OptimizerDef
from jaxmxopt._embedding import value_and_row_grad as value_and_row_grad
from jaxmxopt._optimizer import Optimizer as Optimizer
from jaxmxopt._sparse import RowSparse as RowSparse
from jaxmxopt._state import State as State
from jaxmxopt._trainer import Trainer as Trainer
from jaxmxopt._updater import Updater as Updater
from jaxmxopt._updater import get_updater as get_updater
from jaxmxopt._version import __version__ as __version__
from jaxmxopt._wrappers._accumulate import Accumulate as Accumulate
from jaxmxopt._wrappers._clip import ClipGlobalNorm as ClipGlobalNorm
from jaxmxopt._wrappers._ema import EMA as EMA
from jaxmxopt._wrappers._ema import averaged as averaged
from jaxmxopt._wrappers._groups import Groups as Groups
from jaxmxopt.optimizer import create as create

if _typing.TYPE_CHECKING:
    from jaxmxopt import algorithm as algorithm
    from jaxmxopt import checkpoint as checkpoint
    from jaxmxopt import interop as interop
    from jaxmxopt import mxnet_files as mxnet_files
    from jaxmxopt import sharding as sharding
else:

    def __getattr__(name):
        """Imports a module when it is first asked for."""
        if name in ("algorithm", "checkpoint", "interop", "mxnet_files", "sharding"):
            return _importlib.import_module(f"jaxmxopt.{name}")
        hint = "" if name.startswith("_") else _nearest(name, globals(), at_least=0.7)
        raise AttributeError(f"module 'jaxmxopt' has no attribute {name!r}{hint}")
