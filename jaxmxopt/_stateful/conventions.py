"""Conventions of MXNet's stateful optimizers alone, by the class of the algorithm.

The mathematics of an algorithm stands in its own file. MXNet's Updater adds to it: some classes
take lists of weights, and of these some count before they compute.
"""

from collections.abc import Mapping
from types import MappingProxyType

from jaxmxopt._algorithms import LAMB, LARS, SGD, BERTAdam, ccSGD

__all__ = ["AGGREGATED", "COUNTS_TOGETHER"]

# Classes, subclasses among them, whose list call raises all counts before it asks for a rate.
COUNTS_TOGETHER = (SGD, ccSGD, LARS)

# How many weights MXNet's Updater gives to one call of a class, or of a subclass: its own defaults.
AGGREGATED: Mapping[type, int] = MappingProxyType(
    {SGD: 4, ccSGD: 4, LARS: 4, LAMB: 45, BERTAdam: 4}
)
