"""mxnet.optimizer: stateful optimizers under MXNet's names and signatures.

A program written for MXNet changes its import, and takes back what `update` and the updater
return. Each class is an `Optimizer` around the definition of the same name at the top of the
package, which has the mathematics and the hyperparameters; the arguments that all share are those
of `Optimizer`. States are named tuples in MXNet's order.
"""

from jaxmxopt._stateful.classes import CLASSES as _CLASSES
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

DCASGD = _CLASSES["DCASGD"]
FTML = _CLASSES["FTML"]
LAMB = _CLASSES["LAMB"]
LANS = _CLASSES["LANS"]
LARS = _CLASSES["LARS"]
LBSGD = _CLASSES["LBSGD"]
NAG = _CLASSES["NAG"]
SGD = _CLASSES["SGD"]
SGLD = _CLASSES["SGLD"]
AdaBelief = _CLASSES["AdaBelief"]
AdaDelta = _CLASSES["AdaDelta"]
AdaGrad = _CLASSES["AdaGrad"]
Adam = _CLASSES["Adam"]
AdamW = _CLASSES["AdamW"]
Adamax = _CLASSES["Adamax"]
BERTAdam = _CLASSES["BERTAdam"]
Ftrl = _CLASSES["Ftrl"]
GroupAdaGrad = _CLASSES["GroupAdaGrad"]
Nadam = _CLASSES["Nadam"]
RMSProp = _CLASSES["RMSProp"]
Signum = _CLASSES["Signum"]
Test = _CLASSES["Test"]
ccSGD = _CLASSES["ccSGD"]  # noqa: N816


class contrib:
    """mxnet.optimizer.contrib."""

    GroupAdaGrad = GroupAdaGrad
