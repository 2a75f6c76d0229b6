"""The schedules: MXNet's values in any order of calls, on the host, traced and stacked."""

import copy
import inspect
import json
import math
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import double_precision

from jaxmxopt import lr_scheduler
from jaxmxopt._core import schedules

RECORDED = Path(__file__).parent / "reference" / "data" / "schedulers.npz"
UNIT = 2.0**-24
TEN_MILLION = 10_000_000

# One of each kind, with what sets it apart; the traced tests run over these.
SCHEDULES = {
    "factor": lr_scheduler.FactorScheduler(7, 0.7, base_lr=0.3),
    "factor to the floor": lr_scheduler.FactorScheduler(2, 0.3, 1e-3, base_lr=1.0),
    "factor, late warmup": lr_scheduler.FactorScheduler(3, 0.5, 1e-8, 1.0, 10, 0.1),
    "multifactor": lr_scheduler.MultiFactorScheduler([5, 9, 30], 0.3, 0.2),
    "multifactor, late warmup": lr_scheduler.MultiFactorScheduler([2, 4, 20], 0.1, 1.0, 6),
    "poly": lr_scheduler.PolyScheduler(40, 0.5),
    "poly, fractional": lr_scheduler.PolyScheduler(40, 0.5, 0.9, 0.01, 5, 0.1, "constant"),
    "poly, no room": lr_scheduler.PolyScheduler(5, 0.5, final_lr=0.01, warmup_steps=5),
    "cosine": lr_scheduler.CosineScheduler(40, 0.5),
    "cosine, warmup": lr_scheduler.CosineScheduler(40, 0.5, 0.01, 8, 0.1),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def make(kind, **kwargs):
    return getattr(lr_scheduler, f"{kind}Scheduler")(**kwargs)


def remembering(kind, asked, **kwargs):
    """MXNet's way: one walk through the updates, the learning rate changed as it goes."""
    full = inspect.signature(getattr(lr_scheduler, f"{kind}Scheduler")).bind(**kwargs)
    full.apply_defaults()
    c = full.arguments
    begin, target, warmup = c["warmup_begin_lr"], c["base_lr"], c["warmup_steps"]
    lr, counted, todo = target, 0, list(c["step"]) if kind == "MultiFactor" else []
    for n in asked:
        if n < warmup:
            rise = (target - begin) * n / warmup if c["warmup_mode"] == "linear" else 0.0
            yield begin + rise
            continue
        if kind == "Factor":
            while n > counted + c["step"]:
                counted += c["step"]
                lr = max(lr * c["factor"], c["stop_factor_lr"])
        elif kind == "MultiFactor":
            while todo and n > todo[0]:
                lr *= c["factor"]
                del todo[0]
        elif n <= c["max_update"]:
            part = (n - warmup) / (c["max_update"] - warmup)
            falling = (1 - part) ** c["pwr"] if kind == "Poly" else (1 + np.cos(np.pi * part)) / 2
            lr = c["final_lr"] + (target - c["final_lr"]) * falling
        yield lr


@st.composite
def configurations(draw):
    kind = draw(st.sampled_from(["Factor", "MultiFactor", "Poly", "Cosine"]))
    base = draw(st.floats(1e-6, 10.0))
    warmup = draw(st.integers(0, 40))
    kwargs = {
        "base_lr": base,
        "warmup_steps": warmup,
        "warmup_begin_lr": draw(st.floats(0.0, base)),
        "warmup_mode": draw(st.sampled_from(["linear", "constant"])),
    }
    if kind in ("Poly", "Cosine"):
        late, early = st.integers(warmup + 1, warmup + 90), st.integers(1, max(1, warmup - 1))
        kwargs["max_update"] = draw(late | early.filter(lambda m: m != warmup))
        kwargs["final_lr"] = draw(st.floats(0.0, 1.0))
    if kind == "Poly":
        kwargs["pwr"] = draw(st.sampled_from([0, 1, 2, 3]) | st.floats(0.0, 5.0))
    if kind == "Factor":
        kwargs["step"] = draw(st.integers(1, 50))
        kwargs["stop_factor_lr"] = draw(st.floats(0.0, 1.0))
    if kind == "MultiFactor":
        kwargs["step"] = sorted(draw(st.sets(st.integers(1, 90), min_size=1, max_size=9)))
    if "step" in kwargs:
        kwargs["factor"] = draw(st.floats(0.0, 1.0))
    return kind, kwargs


@settings(max_examples=300, deadline=None, derandomize=True)
@given(configurations())
def test_host_values_are_those_of_a_fresh_mxnet_asked_in_order(configuration):
    kind, kwargs = configuration
    want = list(remembering(kind, range(120), **kwargs))
    got = [make(kind, **kwargs)(n) for n in range(120)]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-16)


def recorded_cases():
    with np.load(RECORDED) as data:
        cases = json.loads(str(data["meta"]))
        return [pytest.param(case, data[f"{case['id']}/lr"], id=case["id"]) for case in cases]


@pytest.mark.parametrize(("case", "want"), recorded_cases())
def test_values_are_those_recorded_from_mxnet(case, want):
    schedule = getattr(lr_scheduler, case["class"])(**case["kwargs"])
    ask = schedule if case["method"] == "__call__" else schedule.get_warmup_lr
    got = [ask(n) for n in range(case["updates"])]
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=0)
    assert all(type(lr) is float for lr in got)
    traced = jax.jit(ask)(jnp.arange(case["updates"]))
    assert traced.dtype == jnp.float32
    np.testing.assert_allclose(traced, want, rtol=10 * UNIT, atol=0)


@every_schedule
def test_an_answer_does_not_depend_on_earlier_calls(schedule):
    before, in_order = repr(schedule), [schedule(n) for n in range(60)]
    shuffled = np.random.default_rng(0).permutation(60)
    assert [schedule(n) for n in shuffled] == [in_order[n] for n in shuffled]
    assert repr(schedule) == before


@every_schedule
def test_traced_and_concrete_arrays_agree_with_the_host(schedule):
    want = [schedule(n) for n in range(60)]
    for got in (jax.jit(schedule)(jnp.arange(60)), schedule(jnp.arange(60))):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=10 * UNIT, atol=0)
    assert schedule(jnp.int32(30)).shape == ()


@every_schedule
def test_traced_values_are_double_under_x64(schedule):
    want = [schedule(n) for n in range(60)]
    with double_precision():
        for dtype in (jnp.int32, jnp.int64):
            got = jax.jit(schedule)(jnp.arange(60, dtype=dtype))
            assert got.dtype == jnp.float64
            np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-16)


@every_schedule
def test_strict_promotion_rules_are_kept(schedule):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for n in (jnp.int32(9), jnp.arange(9), jnp.arange(9, dtype=jnp.uint8)):
            assert schedule(n).dtype == jnp.float32
        assert jax.jit(lambda s: s(9))(schedule).shape == ()


def at_length(kind):
    """A schedule of ten million updates, and its formula in a form that does not cancel."""
    last, base = TEN_MILLION, 0.3
    if kind == "factor":
        # Each drop takes less than the rounding of the factor to float32.
        exact = lr_scheduler.FactorScheduler(1, 1 - 3e-7, 0.0, base)
        return exact, lambda n: base * np.exp((n - 1) * np.log1p(-3e-7))
    if kind == "multifactor":
        exact = lr_scheduler.MultiFactorScheduler([9, 1_000_000, 9_999_998], 0.3, base)
        return exact, lambda n: base * 0.3 ** np.sum(n[:, None] > np.array(exact.step), axis=1)
    if kind == "poly":
        exact = lr_scheduler.PolyScheduler(last, base, warmup_steps=1)
        return exact, lambda n: base * ((last - n) / (last - 1)) ** 2
    exact = lr_scheduler.CosineScheduler(last, base, warmup_steps=1)
    return exact, lambda n: base * np.sin(np.pi / 2 * (last - n) / (last - 1)) ** 2


@pytest.mark.parametrize("kind", ["factor", "multifactor", "poly", "cosine"])
def test_ten_million_updates_lose_no_accuracy(kind):
    schedule, formula = at_length(kind)
    edges = np.array([1, 2, 10, 999_999, 1_000_001, 9_999_990, 9_999_999, TEN_MILLION])
    n = np.union1d(edges, np.random.default_rng(0).integers(1, TEN_MILLION, 5000))
    got = np.asarray(jax.jit(schedule)(jnp.asarray(n, jnp.int32)), np.float64)
    np.testing.assert_allclose(got, formula(n), rtol=10 * UNIT, atol=0)
    host = [schedule(int(i)) for i in n[::50]]
    np.testing.assert_allclose(host, formula(n[::50]), rtol=1e-9, atol=1e-15)


@every_schedule
@pytest.mark.parametrize("n", [-7, -1, 0, 2**31 - 1])
def test_no_count_is_too_small_or_too_large(schedule, n):
    host, array = schedule(n), schedule(jnp.int32(n))
    assert np.isfinite(host)
    np.testing.assert_allclose(array, host, rtol=16 * UNIT, atol=16 * UNIT)
    if not schedule.warmup_steps:
        assert schedule(min(n, 0)) == schedule(0)
    assert np.isfinite(schedule(2**40))


@pytest.mark.parametrize("factor", [0.0, 1e-50, 0.5 + 2.9e-8, 1 - 1e-9, 1.0])
def test_no_factor_is_too_small_and_no_drops_too_many(factor):
    schedule = lr_scheduler.FactorScheduler(1, factor, 1e-6, 1.0)
    for n in (1, 2, 3, 2**31 - 1):
        np.testing.assert_allclose(schedule(jnp.int32(n)), schedule(n), rtol=10 * UNIT)
    traced = jax.tree.map(jnp.float32, schedule)
    assert np.isfinite(traced(10**12))


def test_steps_beyond_int32_are_never_reached():
    for schedule in (
        lr_scheduler.FactorScheduler(10**12, 0.1, base_lr=0.5),
        lr_scheduler.MultiFactorScheduler([10**12], 0.1, 0.5),
        lr_scheduler.PolyScheduler(10**15, 0.5),
        lr_scheduler.CosineScheduler(10**15, 0.5),
    ):
        assert float(schedule(jnp.int32(2**31 - 1))) == pytest.approx(0.5, rel=1e-5)
    warming = lr_scheduler.CosineScheduler(10**12, 0.5, warmup_steps=10**11)
    assert float(warming(jnp.int32(10**9))) == pytest.approx(0.005)


@pytest.mark.parametrize("kind", ["Poly", "Cosine"])
def test_after_the_last_update_comes_final_lr(kind):
    schedule = make(kind, max_update=10, base_lr=1.0, final_lr=0.1)
    assert [schedule(n) for n in (11, 3, 11, 10**9)][::2] == [0.1, 0.1]
    assert schedule(10**9) == 0.1
    assert float(schedule(jnp.int32(11))) == np.float32(0.1)


@pytest.mark.parametrize("kind", ["Poly", "Cosine"])
def test_a_warmup_up_to_the_last_update_leaves_no_decay(kind):
    at_once = make(kind, max_update=4, base_lr=1.0, final_lr=0.1, warmup_steps=4)
    assert [at_once(n) for n in (2, 3, 4, 5)] == [0.5, 0.75, 0.1, 0.1]
    never = make(kind, max_update=3, base_lr=1.0, final_lr=0.1, warmup_steps=4)
    assert [never(n) for n in (2, 3, 4, 5)] == [0.5, 0.75, 1.0, 1.0]


@every_schedule
def test_one_base_lr_rules_warmup_and_decay(schedule):
    doubled = schedule.replace(base_lr=2 * schedule.base_lr)
    fields = {name: getattr(schedule, name) for name in type(schedule).__dataclass_fields__}
    fresh = type(schedule)(**{**fields, "base_lr": 2 * schedule.base_lr})
    assert doubled == fresh
    assert [doubled(n) for n in range(60)] == [fresh(n) for n in range(60)]
    assert doubled != schedule


def test_warmup_is_asked_for_by_itself():
    linear = lr_scheduler.LRScheduler(0.5, 4, 0.1)
    assert linear.get_warmup_lr(3) == pytest.approx(0.4)
    assert float(jax.jit(linear.get_warmup_lr)(3)) == pytest.approx(0.4)
    constant = linear.replace(warmup_mode="constant")
    assert constant.get_warmup_lr(3) == 0.1
    np.testing.assert_array_equal(constant.get_warmup_lr(jnp.arange(3)), np.float32([0.1] * 3))
    with pytest.raises(ValueError, match=r"LRScheduler: num_update must be below .*=4, got 4\."):
        linear.get_warmup_lr(4)


def test_the_base_class_has_no_schedule_and_a_subclass_may_bring_one():
    for n in (1, jnp.int32(1)):
        with pytest.raises(NotImplementedError, match="must override __call__"):
            lr_scheduler.LRScheduler(warmup_steps=5)(n)

    class Inverse(lr_scheduler.LRScheduler):
        def __call__(self, num_update):
            return self.base_lr / num_update

    schedule = Inverse(base_lr=1.0)
    assert schedule(4) == 0.25
    assert float(jax.jit(lambda s, n: s(n))(schedule, 4)) == 0.25


@every_schedule
def test_a_schedule_is_an_immutable_value(schedule):
    with pytest.raises(AttributeError):
        schedule.base_lr = 1.0
    copies = [copy.copy(schedule), copy.deepcopy(schedule), schedule.replace()]
    copies += [pickle.loads(pickle.dumps(schedule)), eval(repr(schedule), vars(lr_scheduler))]
    for other in copies:
        assert other == schedule
        assert hash(other) == hash(schedule)
        assert other(7) == schedule(7)
    assert schedule.replace(base_lr=0.7) != schedule
    assert schedule.replace(warmup_begin_lr=0.05) != schedule


@pytest.mark.parametrize("name", lr_scheduler.__all__)
def test_signatures_and_fields_have_the_same_defaults(name):
    cls = getattr(lr_scheduler, name)
    parameters = list(inspect.signature(cls).parameters.values())
    fields = cls.__dataclass_fields__
    assert {p.name for p in parameters} == set(fields)
    for p in parameters:
        if p.default is not p.empty:
            assert (type(fields[p.name].default), fields[p.name].default) == (
                type(p.default),
                p.default,
            )


@every_schedule
def test_numbers_are_leaves_and_counts_are_structure(schedule):
    leaves, structure = jax.tree.flatten(schedule)
    assert leaves
    assert all(type(leaf) is float for leaf in leaves)
    assert jax.tree.unflatten(structure, leaves) == schedule
    # Placeholders, also out of range, pass where JAX rebuilds.
    for stand_in in (object(), None, "x", -1.0):
        jax.tree.map(lambda _, x=stand_in: x, schedule)
    longer = schedule.replace(warmup_steps=schedule.warmup_steps + 1)
    assert jax.tree.structure(longer) != structure
    assert jax.tree.structure(schedule.replace(base_lr=0.9)) == structure


@every_schedule
def test_new_numbers_do_not_compile_anew(schedule):
    traces = []
    at = jax.jit(lambda s, n: (traces.append(1), s(n))[1])
    for base in (0.5, 0.7, 0.9):
        near = schedule.replace(base_lr=base)
        rounded = jax.tree.map(lambda leaf: float(np.float32(leaf)), near)
        for n in (2, 33):
            np.testing.assert_allclose(at(near, n), rounded(n), rtol=10 * UNIT, atol=UNIT)
    assert len(traces) == 1


@every_schedule
def test_stacked_rates_are_swept_by_vmap(schedule):
    rates = np.float32([0.25, 0.5, 0.75])
    swept = schedule.replace(base_lr=jnp.asarray(rates))
    axes = jax.tree.map(lambda leaf: 0 if np.ndim(leaf) else None, swept)
    for n in (3, jnp.int32(3), 12):
        got = jax.vmap(lambda s, n=n: s(n), in_axes=(axes,))(swept)
        want = [schedule.replace(base_lr=float(rate))(int(n)) for rate in rates]
        np.testing.assert_allclose(got, want, rtol=10 * UNIT, atol=UNIT)
    np.testing.assert_allclose(swept(12), got, rtol=4 * UNIT)


def test_stacked_factors_are_swept_by_vmap():
    members = [lr_scheduler.FactorScheduler(3, f, base_lr=1.0) for f in (0.25, 0.5, 1.0)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    got = jax.vmap(lambda s: s(8))(stacked)
    np.testing.assert_allclose(got, [m(8) for m in members], rtol=4 * UNIT)


@every_schedule
def test_scan_over_steps_gives_the_whole_schedule(schedule):
    _, got = jax.lax.scan(lambda n, _: (n + 1, schedule(n + 1)), jnp.int32(0), length=50)
    want = [schedule(n) for n in range(1, 51)]
    np.testing.assert_allclose(got, want, rtol=10 * UNIT, atol=0)


@every_schedule
def test_gradients_with_respect_to_every_number_are_finite(schedule):
    for n in (0, 1, 20, 40, 90):
        slopes = jax.grad(lambda s, n=n: s(jnp.int32(n)))(schedule)
        assert all(np.isfinite(slope) for slope in jax.tree.leaves(slopes))


REFUSED = [
    ("LR", {"base_lr": 0.1, "warmup_begin_lr": 0.2}, ValueError, "warmup_begin_lr must be at most"),
    ("LR", {"warmup_steps": -1}, ValueError, "warmup_steps must be at least 0, got -1."),
    ("LR", {"warmup_steps": 1.5}, TypeError, "warmup_steps must be of type int, got 1.5."),
    ("LR", {"warmup_steps": True}, TypeError, "warmup_steps must be of type int, got True."),
    ("LR", {"warmup_mode": "linaer"}, ValueError, "got 'linaer'; did you mean 'linear'?"),
    ("LR", {"warmup_mode": 3}, TypeError, "warmup_mode must be of type str, got 3."),
    ("LR", {"base_lr": "0.1"}, TypeError, "base_lr must be a real number, got '0.1'."),
    ("LR", {"base_lr": float("nan")}, ValueError, "base_lr must be in (-inf, inf), got nan."),
    ("LR", {"base_rl": 0.1}, TypeError, "unknown argument 'base_rl'; did you mean 'base_lr'?"),
    ("Factor", {"step": 0}, ValueError, "step must be at least 1, got 0."),
    ("Factor", {"step": 2.5}, TypeError, "step must be of type int, got 2.5."),
    ("Factor", {"step": 2, "factor": 1.5}, ValueError, "factor must be in [0, 1], got 1.5."),
    ("Factor", {"step": 2, "factor": -0.5}, ValueError, "factor must be in [0, 1], got -0.5."),
    ("Factor", {"step": 2, "facter": 0.5}, TypeError, "'facter'; did you mean 'factor'?"),
    ("Factor", {}, TypeError, "'step'"),
    ("MultiFactor", {"step": []}, ValueError, "integers of at least 1, got []."),
    ("MultiFactor", {"step": [3, 3]}, ValueError, "step must be increasing"),
    ("MultiFactor", {"step": [0, 3]}, ValueError, "integers of at least 1, got [0, 3]."),
    ("MultiFactor", {"step": 3}, TypeError, "step must be a list of integers, got 3."),
    ("MultiFactor", {"step": [2.5]}, TypeError, "step must be a list of integers, got [2.5]."),
    ("MultiFactor", {"step": [2], "factor": 2}, ValueError, "factor must be in [0, 1], got 2."),
    ("Poly", {"max_update": 0}, ValueError, "max_update must be at least 1, got 0."),
    ("Poly", {"max_update": 9.0}, TypeError, "max_update must be of type int, got 9.0."),
    ("Poly", {"max_update": 9, "pwr": -1}, ValueError, "pwr must be in [0, inf), got -1."),
    ("Poly", {"max_update": 9, "power": 2}, TypeError, "unknown argument 'power'"),
    ("Cosine", {"max_update": -3}, ValueError, "max_update must be at least 1, got -3."),
    ("Cosine", {"max_update": "9"}, TypeError, "max_update must be of type int, got '9'."),
]


@pytest.mark.parametrize(("kind", "kwargs", "error", "says"), REFUSED, ids=str)
def test_wrong_arguments_are_refused(kind, kwargs, error, says):
    with pytest.raises(error) as caught:
        make(kind, **kwargs)
    assert says in str(caught.value)
    assert f"{kind}Scheduler" in str(caught.value)


@pytest.mark.parametrize("wrong", [2.5, "3", None, np.float32(3), np.ones(2), jnp.float32(3)])
def test_a_count_that_is_no_integer_is_refused(wrong):
    with pytest.raises(TypeError, match="CosineScheduler: num_update must be an integer"):
        lr_scheduler.CosineScheduler(10)(wrong)


def test_numpy_integers_and_positional_arguments_serve():
    schedule = lr_scheduler.PolyScheduler(np.int64(10), 0.5, 1, 0.1, np.int32(2), 0.2, "constant")
    assert schedule == lr_scheduler.PolyScheduler(
        max_update=10,
        base_lr=0.5,
        pwr=1,
        final_lr=0.1,
        warmup_steps=2,
        warmup_begin_lr=0.2,
        warmup_mode="constant",
    )
    assert schedule(np.int64(6)) == schedule(6)
    assert type(schedule(np.int64(6))) is float
    assert lr_scheduler.MultiFactorScheduler(np.array([2, 5])).step == (2, 5)


def test_checks_leave_traced_numbers_alone():
    def swept(factor, begin):
        schedule = lr_scheduler.FactorScheduler(2, factor, base_lr=1.0, warmup_begin_lr=begin)
        return schedule.replace(factor=2 * factor)(3)

    got = jax.vmap(swept)(jnp.float32([0.5, 2.0]), jnp.float32([0.0, 5.0]))
    np.testing.assert_array_equal(got, [1.0, 4.0])


def test_threads_share_no_half_done_work(monkeypatch):
    """Each waits inside of the multiplication that the others are about to do."""

    def slowly(rate, factor, times):
        time.sleep(0.001)
        return multiplied(rate, factor, times)

    multiplied = schedules._multiplied
    schedule = lr_scheduler.FactorScheduler(step=1, factor=0.999, base_lr=0.123, stop_factor_lr=0.0)
    monkeypatch.setattr(schedules, "_multiplied", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(schedule, [1501] * 8))
    assert found == [multiplied(0.123, 0.999, 1500)] * 8
    assert schedule(601) == multiplied(0.123, 0.999, 600)


@pytest.mark.parametrize("n", range(1, 13))
def test_the_cosine_is_rounded_in_mxnets_order(n):
    """`pi * n / steps`, not `pi * (n / steps)`, which is a unit off at some steps."""
    schedule = lr_scheduler.CosineScheduler(max_update=13, base_lr=0.01, final_lr=0.001)
    assert schedule(n) == 0.001 + (0.01 - 0.001) * (1 + math.cos(math.pi * n / 13)) / 2
