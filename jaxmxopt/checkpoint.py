"""States on disk: one `.npz` without pickle, checked throughout, that appears whole or not at all.

A file holds the leaves of a tree under their names, the algorithm and its hyperparameters. What it
holds does not depend on how a state is laid out in memory or over devices. Loading needs the tree
to be restored into: everything is compared with it first, and nothing is ever cast.
"""

from jaxmxopt._stateful.checkpoint import dumps as dumps
from jaxmxopt._stateful.checkpoint import load as load
from jaxmxopt._stateful.checkpoint import load_definition as load_definition
from jaxmxopt._stateful.checkpoint import loads as loads
from jaxmxopt._stateful.checkpoint import save as save

__all__ = [
    "dumps",
    "load",
    "load_definition",
    "loads",
    "save",
]
