"""mxnet.optimizer: stateful optimizers under MXNet's names and signatures.

A program written for MXNet changes its import, and takes back what `update` and the updater
return. Each class is an `Optimizer` around the definition of the same name at the top of the
package, which has the mathematics and the hyperparameters; the arguments that all share are those
of `Optimizer`. States are named tuples in MXNet's order.
"""

from jaxmxopt._stateful.classes import DCASGD as DCASGD
from jaxmxopt._stateful.classes import FTML as FTML
from jaxmxopt._stateful.classes import LAMB as LAMB
from jaxmxopt._stateful.classes import LANS as LANS
from jaxmxopt._stateful.classes import LARS as LARS
from jaxmxopt._stateful.classes import LBSGD as LBSGD
from jaxmxopt._stateful.classes import NAG as NAG
from jaxmxopt._stateful.classes import SGD as SGD
from jaxmxopt._stateful.classes import SGLD as SGLD
from jaxmxopt._stateful.classes import AdaBelief as AdaBelief
from jaxmxopt._stateful.classes import AdaDelta as AdaDelta
from jaxmxopt._stateful.classes import AdaGrad as AdaGrad
from jaxmxopt._stateful.classes import Adam as Adam
from jaxmxopt._stateful.classes import Adamax as Adamax
from jaxmxopt._stateful.classes import AdamW as AdamW
from jaxmxopt._stateful.classes import Ftrl as Ftrl
from jaxmxopt._stateful.classes import GroupAdaGrad as GroupAdaGrad
from jaxmxopt._stateful.classes import Nadam as Nadam
from jaxmxopt._stateful.classes import RMSProp as RMSProp
from jaxmxopt._stateful.classes import Signum as Signum
from jaxmxopt._stateful.classes import Test as Test
from jaxmxopt._stateful.classes import ccSGD as ccSGD
from jaxmxopt._stateful.classes import contrib as contrib
from jaxmxopt._stateful.classes import create as create
from jaxmxopt._stateful.classes import register as register
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
