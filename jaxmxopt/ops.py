"""MXNet's update operators, pure: `mx.nd.*_update` and what goes with them.

Names, arguments and defaults are those of MXNet 1.9.1 and 2.0.0b1, of `mx.nd`, `mx.nd.sparse` and
`mx.nd.contrib` alike, and so is the arithmetic: that of 1.9.1, for operators that only 2.x has that
of 2.0.0b1. Three things differ. An operator returns what MXNet's writes: the new weight, then the
states in the order of the arguments. There is no `out`. A bound of 0 limits nothing, as MXNet's
documentation says.

Each operator is one compiled function, and is inlined inside `jax.jit`. New numbers do not
recompile. A gradient may be a `RowSparse`. Arithmetic of half precision is float32, rounded when it
is stored.

    >>> import jax.numpy as jnp
    >>> from jaxmxopt import ops
    >>> weight, mom = jnp.array([1.0, 2.0]), jnp.zeros(2)
    >>> grad = jnp.array([1.0, -1.0])
    >>> weight, mom = ops.sgd_mom_update(weight, grad, mom, lr=0.1, momentum=0.9)
    >>> print(weight)
    [0.9 2.1]
"""

from jaxmxopt._operators.adamw import adabelief_update as adabelief_update
from jaxmxopt._operators.adamw import adamw_update as adamw_update
from jaxmxopt._operators.adamw import mp_adabelief_update as mp_adabelief_update
from jaxmxopt._operators.adamw import mp_adamw_update as mp_adamw_update
from jaxmxopt._operators.adamw import multi_adabelief_update as multi_adabelief_update
from jaxmxopt._operators.adamw import multi_adamw_update as multi_adamw_update
from jaxmxopt._operators.adamw import multi_mp_adabelief_update as multi_mp_adabelief_update
from jaxmxopt._operators.adamw import multi_mp_adamw_update as multi_mp_adamw_update
from jaxmxopt._operators.lamb import lamb_update_phase1 as lamb_update_phase1
from jaxmxopt._operators.lamb import lamb_update_phase2 as lamb_update_phase2
from jaxmxopt._operators.lamb import mp_lamb_update_phase1 as mp_lamb_update_phase1
from jaxmxopt._operators.lamb import mp_lamb_update_phase2 as mp_lamb_update_phase2
from jaxmxopt._operators.lamb import multi_lamb_update as multi_lamb_update
from jaxmxopt._operators.lamb import multi_lans_update as multi_lans_update
from jaxmxopt._operators.lamb import multi_mp_lamb_update as multi_mp_lamb_update
from jaxmxopt._operators.lamb import multi_mp_lans_update as multi_mp_lans_update
from jaxmxopt._operators.sgd_lists import multi_mp_sgd_mom_update as multi_mp_sgd_mom_update
from jaxmxopt._operators.sgd_lists import multi_mp_sgd_update as multi_mp_sgd_update
from jaxmxopt._operators.sgd_lists import multi_sgd_mom_update as multi_sgd_mom_update
from jaxmxopt._operators.sgd_lists import multi_sgd_update as multi_sgd_update
from jaxmxopt._operators.sgd_lists import (
    preloaded_multi_mp_sgd_mom_update as preloaded_multi_mp_sgd_mom_update,
)
from jaxmxopt._operators.sgd_lists import (
    preloaded_multi_mp_sgd_update as preloaded_multi_mp_sgd_update,
)
from jaxmxopt._operators.sgd_lists import (
    preloaded_multi_sgd_mom_update as preloaded_multi_sgd_mom_update,
)
from jaxmxopt._operators.sgd_lists import preloaded_multi_sgd_update as preloaded_multi_sgd_update
from jaxmxopt._operators.sums import all_finite as all_finite
from jaxmxopt._operators.sums import multi_all_finite as multi_all_finite
from jaxmxopt._operators.sums import multi_lars as multi_lars
from jaxmxopt._operators.sums import multi_sum_sq as multi_sum_sq
from jaxmxopt._operators.sums import reset_arrays as reset_arrays
from jaxmxopt._operators.updates import adagrad_update as adagrad_update
from jaxmxopt._operators.updates import adam_update as adam_update
from jaxmxopt._operators.updates import ftml_update as ftml_update
from jaxmxopt._operators.updates import ftrl_update as ftrl_update
from jaxmxopt._operators.updates import group_adagrad_update as group_adagrad_update
from jaxmxopt._operators.updates import mp_nag_mom_update as mp_nag_mom_update
from jaxmxopt._operators.updates import mp_sgd_mom_update as mp_sgd_mom_update
from jaxmxopt._operators.updates import mp_sgd_update as mp_sgd_update
from jaxmxopt._operators.updates import nag_mom_update as nag_mom_update
from jaxmxopt._operators.updates import rmsprop_update as rmsprop_update
from jaxmxopt._operators.updates import rmspropalex_update as rmspropalex_update
from jaxmxopt._operators.updates import sgd_mom_update as sgd_mom_update
from jaxmxopt._operators.updates import sgd_update as sgd_update
from jaxmxopt._operators.updates import signsgd_update as signsgd_update
from jaxmxopt._operators.updates import signum_update as signum_update

__all__ = [
    "adabelief_update",
    "adagrad_update",
    "adam_update",
    "adamw_update",
    "all_finite",
    "ftml_update",
    "ftrl_update",
    "group_adagrad_update",
    "lamb_update_phase1",
    "lamb_update_phase2",
    "mp_adabelief_update",
    "mp_adamw_update",
    "mp_lamb_update_phase1",
    "mp_lamb_update_phase2",
    "mp_nag_mom_update",
    "mp_sgd_mom_update",
    "mp_sgd_update",
    "multi_adabelief_update",
    "multi_adamw_update",
    "multi_all_finite",
    "multi_lamb_update",
    "multi_lans_update",
    "multi_lars",
    "multi_mp_adabelief_update",
    "multi_mp_adamw_update",
    "multi_mp_lamb_update",
    "multi_mp_lans_update",
    "multi_mp_sgd_mom_update",
    "multi_mp_sgd_update",
    "multi_sgd_mom_update",
    "multi_sgd_update",
    "multi_sum_sq",
    "nag_mom_update",
    "preloaded_multi_mp_sgd_mom_update",
    "preloaded_multi_mp_sgd_update",
    "preloaded_multi_sgd_mom_update",
    "preloaded_multi_sgd_update",
    "reset_arrays",
    "rmsprop_update",
    "rmspropalex_update",
    "sgd_mom_update",
    "sgd_update",
    "signsgd_update",
    "signum_update",
]
