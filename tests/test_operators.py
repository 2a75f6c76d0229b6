"""MXNet's update operators: names and arguments of both versions, numbers of the binaries."""

import inspect
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import operators
import pytest

import jaxmxopt as mxopt
from jaxmxopt import ops
from jaxmxopt._operators import running

W, G = jnp.array([1.0, -2.0], jnp.float32), jnp.array([0.5, 3.0], jnp.float32)
Z = jnp.zeros(2, jnp.float32)
SIGNATURES = [
    (name, arguments)
    for file in operators.FILES
    for name, arguments in operators.recorded(file)[0]["signatures"].items()
]


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """What `operators.py` says of every recorded call, in a process of its own."""
    script = pathlib.Path(__file__).with_name("operators.py")
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_elementwise_operators_are_equal_to_the_bit(results: list[dict[str, Any]]) -> None:
    demanded = [result for result in results if not result["near"]]
    assert len(demanded) > 70
    assert [result["id"] for result in demanded if not result["equal"]] == []


def test_operators_with_sums_are_near(results: list[dict[str, Any]]) -> None:
    assert [result["id"] for result in results if not result["off"] <= _limit(result["id"])] == []


def _limit(case: str) -> float:
    """Units of float32; where MXNet sums the squares of float16 weights, of which 1 is 2^13."""
    return 2.0**13 if case.startswith("multi_mp_la") else 4.0


def test_every_operator_is_recorded() -> None:
    called = {
        case["op"] for file in operators.FILES for case in operators.recorded(file)[0]["cases"]
    }
    assert set(ops.__all__) - called == {"reset_arrays"}
    assert set(ops.__all__) == {name for name, _ in SIGNATURES}


@pytest.mark.parametrize(("name", "arguments"), SIGNATURES, ids=[name for name, _ in SIGNATURES])
def test_arguments_and_defaults_are_those_of_mxnet(name: str, arguments: dict[str, Any]) -> None:
    ours = inspect.signature(getattr(ops, name)).parameters
    assert set(arguments) <= set(ours)
    for argument, default in arguments.items():
        given = ours[argument].default
        if default is None:
            # Required: in Python no such argument may follow one that is not.
            assert given in (inspect.Parameter.empty, 0.0, None), argument
        elif given is None:
            assert argument in ("rho", "momentum")  # Another name of gamma1 and of gamma2.
        else:
            assert np.float32(given) == np.float32(default), argument


@pytest.mark.parametrize("name", ops.__all__)
def test_every_operator_says_what_it_returns(name: str) -> None:
    function = getattr(ops, name)
    assert inspect.getdoc(function).startswith("Return ")
    assert "return" in inspect.get_annotations(function)


# As functions.


def test_nothing_that_is_given_changes() -> None:
    weight, mom = np.array(W), np.array(Z)
    new, new_mom = ops.sgd_mom_update(weight, G, mom, lr=0.1, momentum=0.9)
    assert (weight.tolist(), mom.tolist()) == (W.tolist(), Z.tolist())
    np.testing.assert_allclose(new, weight + np.asarray(new_mom))


def test_operators_work_under_jit_grad_and_vmap() -> None:
    def step(weight: Any, lr: Any, t: Any) -> Any:
        return ops.ftml_update(weight, G, Z, Z, Z, lr=lr, t=t)[0]

    outside = step(W, 0.1, 3)
    np.testing.assert_allclose(jax.jit(step)(W, 0.1, jnp.int32(3)), outside, rtol=2e-6)
    mapped = jax.vmap(step, (None, 0, None))(W, jnp.array([0.1, 0.2]), 3)
    np.testing.assert_allclose(mapped[0], outside, rtol=2e-6)
    slope = jax.grad(lambda lr: ops.sgd_update(W, G, lr=lr).sum())(0.1)
    np.testing.assert_allclose(slope, -G.sum())


def test_new_numbers_do_not_recompile() -> None:
    ops.adam_update(W, G, Z, Z, lr=0.1, wd=0.1)
    before = running._advanced._cache_size()
    for number in range(3):
        ops.adam_update(W, G, Z, Z, lr=0.2 * number, wd=0.2, beta1=0.5 + number / 10)
    assert running._advanced._cache_size() == before


def test_a_bound_of_zero_limits_nothing() -> None:
    free = ops.adam_update(W, G, Z, Z, lr=0.1)
    for array, same in zip(free, ops.adam_update(W, G, Z, Z, lr=0.1, clip_gradient=0), strict=True):
        np.testing.assert_array_equal(array, same)


def test_an_operator_and_the_definition_agree() -> None:
    opt = mxopt.NAG(learning_rate=0.1, momentum=0.9, wd=0.01)
    state = opt.create_state(0, W)
    weight, state = opt.update(0, W, G, state)
    new, mom = ops.nag_mom_update(W, G, Z, lr=0.1, momentum=0.9, wd=0.01)
    np.testing.assert_array_equal(weight, new)
    np.testing.assert_array_equal(state.slots.mom, mom)


def test_other_names_of_mxnet_2_are_taken() -> None:
    first = ops.rmsprop_update(W, G, Z, lr=0.1, gamma1=0.8)
    second = ops.rmsprop_update(W, G, Z, lr=0.1, rho=0.8)
    np.testing.assert_array_equal(first[0], second[0])


def test_flags_go_on_from_an_earlier_one() -> None:
    assert ops.all_finite(W).tolist() == [1.0]
    assert ops.all_finite(W, init_output=False, out=jnp.zeros(1)).tolist() == [0.0]
    flag = ops.multi_all_finite(W, G / 0, num_arrays=2)
    assert (flag.dtype, flag.tolist()) == (jnp.float32, [0.0])
    assert [array.tolist() for array in ops.reset_arrays(W, G, num_arrays=2)] == [[0, 0]] * 2


def test_lamb_in_two_phases_writes_the_master() -> None:
    half = W.astype(jnp.float16)
    g, mean, var = ops.mp_lamb_update_phase1(half, G, Z, Z, W, t=1, wd=0.1)
    assert g.dtype == mean.dtype == var.dtype == jnp.float32
    norms = [jnp.linalg.norm(array).reshape(1) for array in (W, g)]
    weight, master = ops.mp_lamb_update_phase2(half, g, *norms, W, lr=0.1)
    assert (weight.dtype, master.dtype) == (jnp.float16, jnp.float32)
    assert not np.array_equal(master, W)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.sgd_update(W, G, lr=0.1, out=W), "sgd_update: .*'out'; results are returned"),
        (lambda: ops.sgd_update(W, G), "sgd_update: missing a required argument: 'lr'"),
        (lambda: ops.adam_update(W, G, Z, Z, lr=1, beta3=0), "adam_update: .* did you mean 'beta"),
        (lambda: ops.ftml_update(W, G, Z, Z, Z, lr=1), "ftml_update: t must be an integer"),
        (lambda: ops.ftml_update(W, G, Z, Z, Z, lr=1, t=0), "ftml_update: t must be 1 or more"),
        (lambda: ops.sgd_update("w", G, lr=1), "sgd_update.*: weight must be an array, got str"),
        (lambda: ops.sgd_update(W, G[:1], lr=1), r"sgd_update: grad has shape \(1,\), weight has"),
        (
            lambda: ops.sgd_mom_update(W, G, Z, lr=1, momentum=1.5),
            r"sgd_mom_update: momentum must be in \[0, 1\), got 1.5",
        ),
        (
            lambda: ops.multi_sgd_update(W, G, W, G, lrs=[1], wds=[0]),
            "multi_sgd_update: data must hold 2 arrays for each of num_weights=1 weights, got 4",
        ),
        (
            lambda: ops.multi_sgd_update(W, G, lrs=[1, 2], wds=[0]),
            "multi_sgd_update: lrs must have 1 items, one a weight, got 2",
        ),
        (
            lambda: ops.multi_adamw_update([W], [G], [Z], [], 1.0, [1], [0], [1]),
            "multi_adamw_update: var must have 1 items, one a weight, got 0",
        ),
        (
            lambda: ops.adamw_update(W, G, Z, Z, jnp.ones(2), lr=1, eta=1),
            r"adamw_update: rescale_grad must be one number, got shape \(2,\)",
        ),
        (lambda: ops.sgd_update(W, None, lr=1), "sgd_update: grad must be an array, got NoneType"),
        (
            lambda: ops.multi_sgd_update(W, G, W, None, lrs=[1, 1], wds=[0, 0], num_weights=2),
            r"multi_sgd_update: grads\[1\] must be an array, got NoneType",
        ),
        (lambda: ops.all_finite(None), "all_finite: data must be an array, got NoneType"),
        (
            lambda: ops.rmsprop_update(W, G, Z, lr=1, rho=0.9, gamma1=0.5),
            "rmsprop_update: rho is another name of gamma1: give one of them, got both",
        ),
        (
            lambda: ops.mp_sgd_update(W, G, W.astype(jnp.float16), lr=1),
            "mp_sgd_update: .*master.* float16, expected .* float32",
        ),
    ],
)
def test_wrong_calls_say_where_and_what(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
