"""The page on many devices says what eight devices hold and send."""

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from test_sharding import collectives, places

import jaxmxopt as mxopt
from jaxmxopt import sharding

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import plan

SMALL = plan.transformer(64, 2, 128, 32, 256)
OPT = mxopt.AdamW(multi_precision=True)


def mesh(data, model):
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def test_the_tables_of_the_page_are_up_to_date():
    page = plan.PAGE.read_text()
    assert plan.written(page, plan.tables()) == page


@pytest.mark.parametrize(
    ("shape", "axes", "divide"),
    [
        ((8, 1), (), False),
        ((8, 1), (), True),
        ((2, 4), ("model",), True),
        ((8, 1), ("data",), False),
    ],
    ids=["replicated", "divided", "divided twice", "fully divided"],
)
def test_devices_hold_what_is_planned(shape, axes, divide):
    abstract = plan.abstract_weights(SMALL, plan.abstract_mesh(*shape), *axes)
    planned = plan.held(OPT, abstract, divide=divide)
    real = plan.abstract_weights(SMALL, mesh(*shape), *axes)
    weights = jax.tree.map(
        lambda leaf: jax.device_put(jnp.ones(leaf.shape, leaf.dtype), leaf.sharding), real
    )
    place = sharding.divided if divide else sharding.like_weights
    state = jax.jit(OPT.init, out_shardings=place(OPT, weights))(weights)
    assert set(sharding.bytes_per_device(weights).values()) == {planned.weights}
    assert set(sharding.bytes_per_device(state).values()) == {planned.state}


@pytest.mark.parametrize("count", plan.DEVICES)
@pytest.mark.parametrize("name", plan.MODELS)
def test_large_models_follow_the_formulas(name, count):
    parameters = sum(map(math.prod, plan.MODELS[name].values()))
    whole = plan.abstract_weights(plan.MODELS[name], plan.abstract_mesh(count))
    fully = plan.abstract_weights(plan.MODELS[name], plan.abstract_mesh(count), "data")
    assert plan.held(OPT, whole, divide=False).total == 16 * parameters + 4
    assert plan.held(OPT, whole, divide=True).total == parameters * (4 + 12 / count) + 4
    assert plan.held(OPT, fully, divide=False).total == parameters * 16 / count + 4


@pytest.mark.parametrize("placement", ["replicated", "divided", "fully divided"])
def test_devices_send_what_is_planned(placement):
    shapes = {f"layer{number}": (64, 64) for number in range(3)}
    axes = ("data",) if placement == "fully divided" else ()
    # float16: a CPU has no collectives of bfloat16.
    params = plan.abstract_weights(shapes, mesh(8, 1), *axes, dtype=jnp.float16)
    place = sharding.divided if placement == "divided" else sharding.like_weights
    shardings = place(OPT, params)

    def loss(params, x):
        layer = jax.checkpoint(lambda x, weight: jax.nn.relu(x @ weight))
        for weight in params.values():
            x = layer(x, weight)
        return jnp.mean(x.astype(jnp.float32) ** 2)

    def train_step(params, state, x):
        return OPT.step(params, jax.grad(loss)(params, x), state)

    state = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        jax.eval_shape(OPT.init, params),
        shardings,
    )
    x = plan.abstract_weights({"x": (128, 64)}, mesh(8, 1), dtype=jnp.float16)["x"]
    rows = jax.NamedSharding(mesh(8, 1), jax.P("data"))
    x = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows)
    step = jax.jit(train_step, out_shardings=(places(params), shardings))
    said = collectives(step.lower(params, state, x).compile())
    assert {dtype for _, dtype, _ in said} == {"f16"}

    def bytes_of(kind):
        return sum(2 * math.prod(shape) for each, _, shape in said if each == kind)

    size = 2 * sum(map(math.prod, shapes.values()))
    once = plan.traffic("replicated", size, 8).reduced / (2 * size)
    planned = plan.traffic(placement, size, 8)
    assert bytes_of("all-gather") * once == planned.gathered
    # An all-reduce and a slice, which XLA makes a reduce-scatter of elsewhere.
    assert bytes_of("all-reduce") == size
    assert {kind for kind, _, _ in said} <= {"all-gather", "all-reduce"}
