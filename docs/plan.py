"""Plans memory and communication of a training over many devices, without any of them.

    python docs/plan.py   # writes the tables of docs/many_devices.md anew

Bytes come from the library: states and shardings of abstract weights on an abstract mesh. What a
step sends comes from `traffic`. tests/test_plan.py compares both with arrays and with compiled
programs on eight devices.
"""

import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

import jaxmxopt as mxopt
from jaxmxopt import sharding

PAGE = pathlib.Path(__file__).parent / "many_devices.md"
Shapes = Mapping[str, tuple[int, ...]]
GB = 10**9
DEVICES = (8, 64, 256, 1024)
ADAM = mxopt.AdamW(multi_precision=True)


def transformer(width: int, layers: int, hidden: int, keys: int, words: int) -> Shapes:
    """Return the weights of a decoder as Llama 2 is one, its layers stacked for `jax.lax.scan`."""
    return {
        "embedding": (words, width),
        "query": (layers, width, width),
        "key": (layers, width, keys),
        "value": (layers, width, keys),
        "out": (layers, width, width),
        "gate": (layers, width, hidden),
        "up": (layers, width, hidden),
        "down": (layers, hidden, width),
        "norms": (layers, 2, width),
        "norm": (width,),
        "logits": (width, words),
    }


MODELS = {
    "7B": transformer(4096, 32, 11008, 4096, 32000),
    "70B": transformer(8192, 80, 28672, 1024, 32000),
}


class Bytes(NamedTuple):
    """The bytes on one device. Gradients lie as the weights do."""

    weights: int
    grads: int
    state: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def abstract_mesh(data: int, model: int = 1) -> AbstractMesh:
    """Return a mesh of devices that need not exist."""
    return AbstractMesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def abstract_weights(shapes: Shapes, mesh: Any, *axes: str, dtype: Any = jnp.bfloat16) -> Any:
    """Weights without memory, each divided over some axes along its last dimension that can be."""
    pieces = math.prod(mesh.shape[axis] for axis in axes)

    def place(shape: tuple[int, ...]) -> PartitionSpec:
        fitting = [number for number, size in enumerate(shape) if size % pieces == 0]
        if not axes or not fitting:
            return PartitionSpec()
        return PartitionSpec(
            *(axes if number == fitting[-1] else None for number in range(len(shape)))
        )

    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, place(shape)))
        for name, shape in shapes.items()
    }


def bytes_on_one(tree: Any, shardings: Any) -> int:
    """Return the bytes of a tree on one device."""
    return sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    )


def held(opt: Any, weights: Any, *, divide: bool) -> Bytes:
    """Return the bytes on one device, the state over the data axis or laid out as the weights."""
    place = sharding.divided if divide else sharding.like_weights
    mine = bytes_on_one(weights, [leaf.sharding for leaf in jax.tree.leaves(weights)])
    state = jax.eval_shape(opt.init, weights)
    return Bytes(mine, mine, bytes_on_one(state, place(opt, weights)))


class Traffic(NamedTuple):
    """The bytes that one device sends in a step, with rings: `n - 1` pieces of an n-th each.

    The size is of the weights that the ring has, in bytes.
    """

    reduced: float
    gathered: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def traffic(placement: str, size: float, replicas: int) -> Traffic:
    """Return what a device sends in a step for gradients and weights of `size` bytes.

    Args:
        placement: `"replicated"`: gradients are summed by an all-reduce, which is a
            reduce-scatter and an all-gather. `"divided"`: gradients are reduce-scattered, new
            weights gathered. `"fully divided"`: weights are gathered in the forward pass and
            again in the backward pass, gradients reduce-scattered.
        size: bytes of the weights, and of the gradients.
        replicas: length of the ring.
    """
    once = size * (replicas - 1) / replicas
    return {
        "replicated": Traffic(2 * once, 0),
        "divided": Traffic(once, once),
        "fully divided": Traffic(once, 2 * once),
    }[placement]


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Return a table in Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value: float) -> str:
    """With three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def algorithms_table() -> str:
    """Bytes of state for each parameter of a large bfloat16 matrix with a master."""
    weight = jax.ShapeDtypeStruct((4096, 4096), jnp.bfloat16)
    rows: dict[tuple[int, int], list[str]] = {}
    for kind in sorted(
        {
            k
            for k in vars(mxopt).values()
            if isinstance(k, type) and issubclass(k, mxopt.OptimizerDef)
        }
        - {mxopt.OptimizerDef, mxopt.Test},
        key=lambda kind: kind.__name__,
    ):
        # A momentum that may be 0 decides which slots there are.
        field = kind._described.get("momentum")
        momentum = [{"momentum": 0.9}] if field and 0.0 in field.interval else []
        for settings in ({"momentum": 0.0} if momentum else {}, *momentum):
            state = jax.eval_shape(kind(multi_precision=True, **settings).init, {"w": weight})
            slots = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.slots))
            masters = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.master))
            key = round(slots / weight.size), round(masters / weight.size)
            label = kind.__name__ + (" with momentum" if settings.get("momentum") else "")
            rows.setdefault(key, []).append(label)
    return table(
        ["algorithms", "slots", "master", "state"],
        [[", ".join(names), *key, sum(key)] for key, names in sorted(rows.items())],
    )


def memory_table(name: str) -> str:
    """GB on each device, by placement and number of devices."""
    rows = []
    for count in DEVICES:
        mesh = abstract_mesh(count)
        whole = abstract_weights(MODELS[name], mesh)
        grid = abstract_mesh(count // 8, 8)
        plans = [
            held(ADAM, whole, divide=False),
            held(ADAM, whole, divide=True),
            held(ADAM, abstract_weights(MODELS[name], grid, "model"), divide=True),
            held(ADAM, abstract_weights(MODELS[name], mesh, "data"), divide=False),
        ]
        rows.append([f"{count:,}", *(number(plan.total / GB) for plan in plans)])
    head = ["devices", "replicated", "divided", "divided, weights over 8", "fully divided"]
    return table(head, rows)


def traffic_table(name: str) -> str:
    """GB that each device sends in a step, for weights and gradients."""
    size = 2 * sum(map(math.prod, MODELS[name].values()))
    rows = []
    for count in DEVICES:
        sent = [
            traffic("replicated", size, count),
            traffic("divided", size, count),
            traffic("divided", size / 8, count // 8),
            traffic("fully divided", size, count),
        ]
        rows.append([f"{count:,}", *(number(one.total / GB) for one in sent)])
    head = ["devices", "replicated", "divided", "divided, weights over 8", "fully divided"]
    return table(head, rows)


def tables() -> dict[str, str]:
    """Every table of the page under its name."""
    return {
        "algorithms": algorithms_table(),
        **{f"memory {name}": memory_table(name) for name in MODELS},
        **{f"traffic {name}": traffic_table(name) for name in MODELS},
    }


def written(text: str, made: Mapping[str, str]) -> str:
    """Return the page with its tables between `<!-- table: NAME -->` and `<!-- end -->`."""
    for name, lines in made.items():
        mark = f"<!-- table: {name} -->"
        pattern = re.escape(mark) + r".*?<!-- end -->"
        text, count = re.subn(pattern, f"{mark}\n{lines}\n<!-- end -->", text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"the page must have one table {name!r}, got {count}.")
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), tables()))
