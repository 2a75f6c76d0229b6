"""Algorithms of matrices: batches, devices, ways to take a weight apart, groups by kind."""

import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from samples import assert_near, assert_same, double_precision

import jaxmxopt as mxopt
from jaxmxopt import checkpoint
from jaxmxopt._core import batches

COLLECTIVE = r" (all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter)(?:-start)?\("


def drawn(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, jax.Array]:
    draw = np.random.default_rng(seed)
    return {name: jnp.asarray(draw.normal(size=s), jnp.float32) for name, s in shapes.items()}


def stepped(opt: Any, params: Any) -> Any:
    return opt.step(params, params, opt.init(params))[0]


def sizes_of_batches(monkeypatch: pytest.MonkeyPatch, call: Any) -> list[int]:
    sizes, together = list[int](), batches._together

    def spy(calls: Any) -> Any:
        sizes.append(len(calls))
        return together(calls)

    monkeypatch.setattr(batches, "_together", spy)
    call()
    return sizes


def test_matrices_of_one_shape_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    params = drawn({"a": (4, 6), "b": (4, 6), "c": (4, 8), "d": (4, 6)})
    opt = mxopt.Muon(lr_mult={"b": 2.0}, wd=0.1, rescale_grad=0.75)
    # The rules ask alone at first, and what that gives is left out of the program.
    assert sizes_of_batches(monkeypatch, lambda: stepped(opt, params))[-2:] == [3, 1]
    new = stepped(opt, params)
    for name, weight in params.items():
        alone, _ = opt.update(name, weight, weight, opt.create_state(name, weight))
        assert_near(new[name], alone, 64)


@pytest.mark.parametrize("kind", [mxopt.Muon, mxopt.SOAP], ids=lambda kind: kind.__name__)
def test_a_trainer_makes_the_same_batches(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    params = drawn({"a": (5, 6), "b": (5, 6), "c": (5, 6)})
    trainer = mxopt.Trainer(params, kind(wd=0.1))
    assert sizes_of_batches(monkeypatch, lambda: trainer.step(params, 1))[-1] == 3


@pytest.mark.parametrize("kind", [mxopt.Muon, mxopt.SOAP], ids=lambda kind: kind.__name__)
def test_batches_are_made_with_64_bit_types_too(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with double_precision():
        params = drawn({"a": (5, 7), "b": (5, 7), "c": (5, 7)})
        assert params["a"].dtype == np.float32
        assert sizes_of_batches(monkeypatch, lambda: stepped(kind(wd=0.1), params))[-1] == 3


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda kind: kind.name)
@pytest.mark.parametrize("spec", [P("d", None), P(None, "d")], ids=str)
def test_a_batch_divided_among_devices_moves_twice(kind: AxisType, spec: P) -> None:
    """Once so that each device has whole matrices, and once back."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    shapes = dict.fromkeys("abc", (16, 32))
    here = drawn(shapes)
    params = jax.device_put(here, NamedSharding(mesh, spec))
    opt = mxopt.Muon(wd=0.1)
    step = jax.jit(opt.step).lower(params, params, opt.init(params)).compile()
    assert Counter(re.findall(COLLECTIVE, step.as_text())) == {"all-to-all": 2}
    new, state = step(params, params, opt.init(params))
    assert new["a"].sharding.spec == spec == state.unpack(params)["a"].slots.mom.sharding.spec
    assert_near(jax.device_get(new), jax.device_get(stepped(opt, here)), 64)


APART = {
    "fused queries, keys and values": ("i (3 o)", (6, 12), np.s_[:, 4:8]),
    "heads of a kernel with three axes": ("i b o", (6, 3, 4), np.s_[:, 1]),
    "layers behind one another": ("... i o", (3, 6, 4), np.s_[1]),
    "rows of a weight of torch": ("(3 o) i", (12, 6), np.s_[4:8]),
}


@pytest.mark.parametrize(("matrices", "shape", "part"), APART.values(), ids=APART)
def test_a_pattern_takes_a_weight_apart(matrices: str, shape: Any, part: Any) -> None:
    weight = drawn({"w": shape})["w"]
    new = stepped(mxopt.Muon(matrices=matrices), weight)
    order = "o i" if matrices.endswith(" i") else "i o"
    alone = stepped(mxopt.Muon(matrices=order), weight[part])
    assert_near(new[part], alone, 64)


def test_axes_of_a_convolution_are_merged() -> None:
    kernel = drawn({"w": (3, 3, 4, 6)})["w"]
    new = stepped(mxopt.Muon(matrices="i i i o"), kernel)
    assert_near(new, stepped(mxopt.Muon(), kernel.reshape(36, 6)).reshape(kernel.shape), 64)


@pytest.mark.parametrize("matrices", ["i", "i o x", "(i o)", "i ... o", "i (3 o", ""])
def test_a_pattern_that_is_none_is_refused(matrices: str) -> None:
    with pytest.raises(ValueError, match="Muon: matrices must name the axes of a weight"):
        mxopt.Muon(matrices=matrices)


def test_a_weight_that_does_not_fit_a_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'w'.*have the axes 'i \(3 o\)', got shape \(4, 7\)"):
        mxopt.Muon(matrices="i (3 o)").init({"w": jnp.ones((4, 7))})


def test_singular_values_come_near_one_in_both_precisions() -> None:
    weight = drawn({"w": (12, 40)})["w"]
    for half in (False, True):
        opt = mxopt.Muon(learning_rate=1.0, scale="none", half=half)
        values = np.linalg.svd(np.asarray(weight - stepped(opt, weight)))[1]
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_a_wide_matrix_gives_what_the_iteration_gives() -> None:
    """Iterating on the Gram matrix is another order of the same products."""
    x = np.asarray(drawn({"w": (8, 64)})["w"], np.float64)
    x = x * np.geomspace(1, 1e-4, 8)[:, None]
    weight = jnp.asarray(x, jnp.float32)
    got = weight - stepped(mxopt.Muon(learning_rate=1.0, scale="none"), weight)
    x = x / np.sqrt(np.sum(x * x))
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    np.testing.assert_allclose(got, x, atol=2e-5)


MODEL = {
    "embed": (8, 4),
    "block/MultiHeadAttention_0/query/kernel": (4, 4),
    "block/mlp/kernel": (4, 8),
    "block/mlp/bias": (8,),
    "block/norm/scale": (4,),
    "lm_head/kernel": (4, 8),
}
HIDDEN = {"block/MultiHeadAttention_0/query/kernel", "block/mlp/kernel"}


def test_the_usual_split_is_one_line_and_can_be_printed() -> None:
    params = drawn(MODEL)
    opt = mxopt.by_kind(mxopt.Muon(), mxopt.AdamW())
    head, *lines = opt.table(params).splitlines()
    assert head.split() == ["weight", "shape", "group", "definition"]
    assert [line.split()[0] for line in lines] == sorted(MODEL)
    assert {line.split()[0] for line in lines if line.endswith("Muon()")} == HIDDEN
    states = opt.init(params).unpack(params)
    assert {name for name in MODEL if hasattr(states[name].slots, "mom")} == HIDDEN


@pytest.mark.parametrize("name", ["tok_emb", "pos_emb", "wpe", "position_embeddings/weight"])
def test_embeddings_are_no_matrices_between_layers(name: str) -> None:
    opt = mxopt.by_kind(mxopt.Muon(), mxopt.AdamW())
    assert "AdamW()" in opt.table(drawn({name: (4, 4)}))


def test_one_pattern_must_stand_in_a_sequence() -> None:
    with pytest.raises(TypeError, match="outer must be a sequence of patterns, got 'head'"):
        mxopt.by_kind(mxopt.Muon(), mxopt.AdamW(), outer="head")


@pytest.mark.parametrize("inside", [mxopt.EMA, mxopt.Accumulate, mxopt.Prodigy, lambda one: one])
@pytest.mark.filterwarnings("ignore:.* is of no weight:UserWarning")
def test_a_group_may_be_of_no_weight(inside: Any) -> None:
    """States that are taken apart and put together again are the same, as in a Trainer."""
    around = {mxopt.Accumulate: {"every": 2}}.get(inside, {})
    opt = mxopt.Groups({"embed": inside(mxopt.AdamW(), **around), "*": mxopt.SGD(momentum=0.5)})
    params = drawn({"w": (3,)})
    new, state = opt.step(params, params, opt.init(params))
    assert_same(opt.pack(new, state.unpack(new)).slots.states[1], state.slots.states[1])
    assert opt.pack(new, state.unpack(new)).slots.states[0].num_update == 1
    trainer = mxopt.Trainer(params, opt)
    assert_same(trainer.step(params, 1), new)


def test_a_key_may_be_a_function_of_name_and_shape() -> None:
    params = drawn({"a": (4, 6), "b": (6,)})
    opt = mxopt.Groups(
        {lambda name, shape: len(shape) == 2: mxopt.SGD(learning_rate=1.0), "*": None}
    )
    new = stepped(opt, params)
    assert_same(new, {"a": jnp.zeros((4, 6)), "b": params["b"]})
    # One weight goes by the same key.
    alone, _ = opt.update("a", params["a"], params["a"], opt.create_state("a", params["a"]))
    assert_same(alone, new["a"])
    trainer = mxopt.Trainer(params, opt)
    assert_same(trainer.step(params, 1), new)


def test_groups_by_kind_go_into_files(tmp_path: Any) -> None:
    params = drawn(MODEL)
    opt = mxopt.by_kind(mxopt.SOAP(), mxopt.AdamW())
    params, state = opt.step(params, params, opt.init(params))
    checkpoint.save(tmp_path / "state.npz", state, opt=opt, params=params)
    assert checkpoint.load_definition(tmp_path / "state.npz") == opt
