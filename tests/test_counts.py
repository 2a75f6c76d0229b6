"""Counts at the end of their range."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxmxopt as mxopt

LAST = 2**31 - 1


def test_a_count_stays_at_the_largest_number(cls: type[mxopt.OptimizerDef]) -> None:
    opt = cls(begin_num_update=LAST - 2)
    weight = jnp.ones((2, 3))
    state = opt.create_state(0, weight)
    params, whole = {"w": weight}, opt.init({"w": weight})
    for _ in range(4):
        weight, state = opt.update(0, weight, jnp.full((2, 3), 0.5), state)
        params, whole = opt.step(params, {"w": jnp.full((2, 3), 0.5)}, whole)
    assert state.num_update == whole.num_update == LAST
    assert bool(jnp.isfinite(weight).all())
    assert bool(jnp.isfinite(params["w"]).all())


def test_a_schedule_goes_on_at_the_end_of_the_counts() -> None:
    opt = mxopt.SGD(
        lr_scheduler=mxopt.lr_scheduler.FactorScheduler(step=10, factor=0.5, base_lr=1.0),
        begin_num_update=LAST - 1,
    )
    weight, state = jnp.ones(2), opt.init(jnp.ones(2))
    for _ in range(3):
        weight, state = jax.jit(opt.step)(weight, jnp.ones(2), state)
    # The rate has long fallen to almost nothing, and does not begin again.
    np.testing.assert_allclose(weight, 1.0, atol=1e-6)
