"""MXNet's files without MXNet: `.params` and `.states`, read as data.

MXNet saves the states of optimizers as pickles, which can run anything when they are loaded. Here
they are read by an interpreter that knows arrays, containers, numbers and text, and refuses all
else by name. Nothing in a file is executed or imported; whatever is wrong with one is a
`ValueError`, and reading takes time and memory in proportion to the file.

Arrays come as JAX arrays. Those of 64 bits stay NumPy arrays while JAX has no 64-bit types
(`jax_enable_x64`), so that nothing is lost.
"""

from jaxmxopt._mxnet.ndarray import CSR as CSR
from jaxmxopt._mxnet.record import MXNetRecord as MXNetRecord
from jaxmxopt._stateful.mxnet_files import MXNetStates as MXNetStates
from jaxmxopt._stateful.mxnet_files import load_params as load_params
from jaxmxopt._stateful.mxnet_files import load_states as load_states
from jaxmxopt._stateful.mxnet_files import save_params as save_params
from jaxmxopt._stateful.mxnet_files import save_states as save_states
from jaxmxopt._stateful.mxnet_files import to_definition as to_definition
from jaxmxopt._stateful.mxnet_files import to_states as to_states

__all__ = [
    "CSR",
    "MXNetRecord",
    "MXNetStates",
    "load_params",
    "load_states",
    "save_params",
    "save_states",
    "to_definition",
    "to_states",
]
