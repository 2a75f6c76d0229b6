"""States over a mesh: the numbers of one device, a part of its memory, no needless talk."""

import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sharding_worker
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from samples import OF_THE_WHOLE, assert_near, is_real, make

import jaxmxopt as mxopt
from jaxmxopt import sharding

MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
SHAPES = {"kernel": (16, 6), "table": (3, 16), "odd": (3, 5)}
COLLECTIVE = re.compile(
    r"= (.+?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
# What is sent is settled before machine code is made.
QUICKLY = {"xla_backend_optimization_level": 0}
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def draw(seed=0, dtype=jnp.float32, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {key: jnp.asarray(rng.normal(size=shape), dtype) for key, shape in shapes.items()}


WHOLE = P()


def placed(tree, spec=WHOLE, mesh=MESH):
    return jax.device_put(tree, NamedSharding(mesh, spec))


def places(tree):
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def assert_lies(tree, shardings):
    for leaf, place in zip(*map(jax.tree.leaves, (tree, shardings)), strict=True):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim)


def programs(opt, params, shardings):
    """A step and an init whose states lie as they shall."""
    step = jax.jit(opt.step, out_shardings=(places(params), shardings), compiler_options=QUICKLY)
    return step, jax.jit(opt.init, out_shardings=shardings, compiler_options=QUICKLY)


def collectives(program):
    """What a compiled program sends: `(kind, dtype, shape)` of every array."""
    return [
        (kind, dtype, tuple(map(int, filter(None, shape.split(",")))))
        for result, kind in COLLECTIVE.findall(program.as_text())
        for dtype, shape in ARRAY.findall(result)
    ]


def sent(opt, params, shardings):
    step, _ = programs(opt, params, shardings)
    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(opt.init, params),
        shardings,
    )
    return collectives(step.lower(params, params, state).compile())


def gathers(params, shardings):
    """The gathers that are needed: one of each weight with a divided part of its state."""
    short = {jnp.dtype(jnp.float32): "f32", jnp.dtype(jnp.float16): "f16"}
    return sorted(
        ("all-gather", short[params[key].dtype], params[key].shape)
        for key, one in shardings.unpack(params).items()
        if any(place.spec != P() for place in jax.tree.leaves((one.slots, one.master)))
    )


def assert_needed(said, params, shardings, cls):
    """Nothing is sent but new weights, and norms of updates where the algorithm has them."""
    if cls.__name__ in OF_THE_WHOLE:
        said = [one for one in said if (one[0], one[2]) != ("all-reduce", ())]
    assert sorted(said) == gathers(params, shardings)


def alone(opt, steps=2):
    params, grads, state = draw(0), draw(1), opt.init(draw(0))
    for _ in range(steps):
        params, state = opt.step(params, grads, state)
    return params


def test_divided_states_give_the_numbers_of_one_device(cls):
    opt, params, grads = make(cls), placed(draw(0)), placed(draw(1))
    shardings = sharding.divided(opt, params)
    step, init = programs(opt, params, shardings)
    state = init(params)
    program = step.lower(params, grads, state).compile()
    assert_needed(collectives(program), params, shardings, cls)
    for _ in range(2):
        params, state = program(params, grads, state)
    assert_near(jax.device_get(params), jax.device_get(alone(opt)), 32)
    assert_lies(state, shardings)
    assert all(leaf.sharding.is_fully_replicated for leaf in params.values())


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each of two processes that train together ended with."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    worker, folder = Path(sharding_worker.__file__), tmp_path_factory.mktemp("two")
    processes = [
        subprocess.Popen(
            [sys.executable, worker, str(port), str(number), folder],
            env=os.environ | sharding_worker.SETTINGS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=500)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    return [np.load(folder / f"{number}.npz") for number in range(2)]


def test_two_processes_give_the_numbers_of_one_device(cls, two_processes):
    expected = jax.device_get(alone(make(cls)))
    for got in two_processes:
        assert_near({key: got[f"{cls.__name__}/{key}"] for key in SHAPES}, expected, 32)


def test_two_processes_hold_a_quarter_of_the_state_on_each_device(cls, two_processes):
    state = make(cls).init(draw(0))
    cut = [shape for shape in SHAPES.values() if shape != SHAPES["odd"]]
    expected = sum(
        leaf.nbytes // (4 if leaf.shape in cut or leaf.shape == (16, 1) else 1)
        for leaf in jax.tree.leaves(state)
        if is_real(leaf)
    )
    for got in two_processes:
        assert got[f"{cls.__name__}/bytes"].tolist() == [expected] * 2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
def test_each_device_holds_an_eighth_of_the_state(dtype):
    opt = mxopt.Adam(multi_precision=True)
    params = placed(draw(0, dtype, {"a": (64, 32), "b": (3, 128), "c": (256,)}))
    whole = jax.jit(opt.init)(params)
    state = jax.jit(opt.init, out_shardings=sharding.divided(opt, params))(params)
    count = 4  # Of num_update, which is everywhere.
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(whole)) - count
    elements = 64 * 32 + 3 * 128 + 256
    assert total == elements * (8 if dtype == jnp.float32 else 12)
    assert set(sharding.bytes_per_device(whole).values()) == {total + count}
    assert set(sharding.bytes_per_device(state).values()) == {total // 8 + count}


def test_an_update_as_the_weights_are_sends_norms_alone(cls):
    opt = make(cls, **({"warmup_strategy": "lars"} if cls is mxopt.LBSGD else {}))
    params = placed(draw(0, shapes={"a": (16, 6), "b": (8, 4)}), P("data"))
    said = sent(opt, params, sharding.like_weights(opt, params))
    if cls is mxopt.SGLD:
        # Its noise is drawn for the whole weight, whose bits are those of one device.
        assert all(kind != "all-gather" for kind, _, _ in said)
        return
    assert {(kind, shape) for kind, _, shape in said} == (
        {("all-reduce", ())} if cls.__name__ in OF_THE_WHOLE else set()
    )


@pytest.mark.parametrize("kind", ["SGD", "Adam", "Nadam"])
def test_a_divided_update_gathers_half_precision_as_it_is(kind):
    # float16: a CPU has no collectives of bfloat16, and XLA widens them there.
    opt, params = make(getattr(mxopt, kind), multi_precision=True), placed(draw(0, jnp.float16))
    shardings = sharding.divided(opt, params)
    assert sorted(sent(opt, params, shardings)) == gathers(params, shardings)


def test_weights_divided_over_another_axis_stay_so():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    params = {
        "rows": placed(jnp.ones((8, 6)), P("model"), mesh),
        "columns": placed(jnp.ones((4, 6)), P(None, "model"), mesh),
        "fully": placed(jnp.ones((8, 6)), P("data"), mesh),
        "odd": placed(jnp.ones((3, 2)), P(None, "model"), mesh),
    }
    shown = sharding.divided(mxopt.Adam(), params).unpack(params)
    assert {key: one.slots.mean.spec for key, one in shown.items()} == {
        "rows": P(("model", "data")),
        "columns": P("data", "model"),
        "fully": P("data"),
        "odd": P(None, "model"),
    }
    odd = {"rows": params["odd"]}
    both = sharding.divided(mxopt.Adam(), odd, ("data", "model"))
    assert both.unpack(odd)["rows"].slots.mean.spec == P(None, "model")


def test_slots_of_another_shape_follow_the_rows():
    params = {"w": placed(jnp.ones((8, 6)), P("data"))}
    state = sharding.like_weights(mxopt.GroupAdaGrad(), params)
    assert state.unpack(params)["w"].slots.history.spec == P("data")
    assert state.num_update.spec == P()


@pytest.mark.parametrize("kind", ["Adam", "LAMB", "Signum", "Nadam"])
@pytest.mark.parametrize("skip", [False, True])
def test_explicit_meshes(kind, skip):
    """Types say where an array is: weights must come back as they were."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    opt = make(getattr(mxopt, kind))
    with jax.set_mesh(mesh):
        params, grads = placed(draw(0), mesh=mesh), placed(draw(1), mesh=mesh)
        state = jax.jit(opt.init, out_shardings=sharding.divided(opt, params))(params)
        where = jnp.array(True) if skip else None
        stepped, after = jax.jit(opt.step)(params, grads, state, where=where)
        assert_lies(after, places(state))
        assert all(leaf.sharding.is_fully_replicated for leaf in stepped.values())
    assert_near(jax.device_get(stepped), jax.device_get(alone(opt, 1)), 32)


@pytest.mark.parametrize(
    "wrap",
    [
        partial(mxopt.Accumulate, every=2),
        partial(mxopt.EMA, decay=0.9),
        partial(mxopt.ClipGlobalNorm, max_norm=0.5),
        lambda opt: mxopt.Groups({"kernel": mxopt.EMA(opt), "*": opt}),
    ],
    ids=["Accumulate", "EMA", "ClipGlobalNorm", "Groups"],
)
def test_wrappers_are_divided_too(wrap):
    opt, params, grads = wrap(make(mxopt.Adam)), placed(draw(0)), placed(draw(1))
    shardings = sharding.divided(opt, params)
    step, init = programs(opt, params, shardings)
    state = init(params)
    for _ in range(2):
        params, state = step(params, grads, state)
    assert_near(jax.device_get(params), jax.device_get(alone(opt)), 32)
    for leaf in jax.tree.leaves(state):
        assert leaf.sharding.is_fully_replicated == (leaf.shape in ((), (3, 5)))


def test_abstract_weights_plan_without_memory():
    whole = NamedSharding(MESH, P())
    params = {"w": jax.ShapeDtypeStruct((1 << 20, 1 << 12), jnp.bfloat16, sharding=whole)}
    state = sharding.divided(mxopt.Adam(multi_precision=True), params)
    assert state.unpack(params)["w"].master.spec == P("data")


def test_refuses_weights_without_a_mesh_and_unknown_axes():
    with pytest.raises(ValueError, match=r"^sharding\.like_weights\('w'\): weight must have a Na"):
        sharding.like_weights(mxopt.Adam(), {"w": jnp.ones(8)})
    with pytest.raises(ValueError, match=r"^sharding\.divided: axis must be of the mesh, got 'x'"):
        sharding.divided(mxopt.Adam(), placed(draw()), "x")
