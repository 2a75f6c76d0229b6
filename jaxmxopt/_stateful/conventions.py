"""Conventions of MXNet's stateful optimizers alone, by the class of the algorithm.

The mathematics of an algorithm stands in its own file. MXNet's Updater adds to it: a call with a
list of weights may count before it computes.
"""

from jaxmxopt._algorithms import LARS, SGD, ccSGD

__all__ = ["COUNTS_TOGETHER"]

# Classes, subclasses among them, whose list call raises all counts before it asks for a rate.
COUNTS_TOGETHER = (SGD, ccSGD, LARS)
