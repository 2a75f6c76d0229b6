"""Apache MXNet's optimizers, whole, on JAX."""

from jaxmxopt._algorithms.adam import Adam as Adam
from jaxmxopt._algorithms.sgd import SGD as SGD
from jaxmxopt._definition import OptimizerDef as OptimizerDef
from jaxmxopt._sparse import RowSparse as RowSparse
from jaxmxopt._state import State as State
from jaxmxopt._version import __version__ as __version__
