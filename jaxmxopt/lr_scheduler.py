"""Learning rates as functions of the number of updates: mxnet.lr_scheduler, made pure.

MXNet's answers depend on earlier calls. These are what a fresh scheduler of MXNet answers when
asked for updates 0, 1, 2, ... in order: a Python float in double precision for a host integer, an
array of JAX's default float for an array of integers, traced or not. Learning rates and factors
are leaves, so they may be traced or stacked; counts of updates are static.
"""

from jaxmxopt._core.schedules import CosineScheduler as CosineScheduler
from jaxmxopt._core.schedules import FactorScheduler as FactorScheduler
from jaxmxopt._core.schedules import LRScheduler as LRScheduler
from jaxmxopt._core.schedules import MultiFactorScheduler as MultiFactorScheduler
from jaxmxopt._core.schedules import PolyScheduler as PolyScheduler

__all__ = [
    "CosineScheduler",
    "FactorScheduler",
    "LRScheduler",
    "MultiFactorScheduler",
    "PolyScheduler",
]
