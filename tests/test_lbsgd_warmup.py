"""The warmup of LBSGD over counts that 32 bits do not hold the squares of."""

import jax.numpy as jnp
import pytest

import jaxmxopt as mxopt


@pytest.mark.parametrize("strategy", ["linear", "power2", "sqrt"])
@pytest.mark.parametrize(
    "lengths",
    [
        {"warmup_epochs": 5, "updates_per_epoch": 10_000, "begin_epoch": 4},
        {"warmup_epochs": 90, "updates_per_epoch": 500_000_000, "begin_epoch": 4},
    ],
    ids=["long", "longer"],
)
def test_a_traced_warmup_is_that_of_the_host(strategy, lengths):
    opt = mxopt.LBSGD(warmup_strategy=strategy, batch_scale=3, **lengths)
    warmed = opt.rates(1.0, 0.0, 0).lr
    assert 1.0 < warmed < 3.0
    assert opt.rates(1.0, 0.0, jnp.int32(0)).lr == pytest.approx(warmed, rel=1e-6)


def test_a_step_of_a_long_warmup():
    opt = mxopt.LBSGD(warmup_strategy="power2", updates_per_epoch=10_000)
    w = jnp.ones(2)
    assert opt.step(w, w, opt.init(w))[0].tolist() == pytest.approx([0.99, 0.99])


def test_a_beginning_past_all_counts_is_refused():
    opt = mxopt.LBSGD(updates_per_epoch=2**20, begin_epoch=2**11)
    with pytest.raises(
        ValueError, match=r"^LBSGD\.init\(''\): begin_epoch \* updates_per_epoch must"
    ):
        opt.init(jnp.ones(2))
