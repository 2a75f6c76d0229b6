"""Lazy Adam on the rows of a large table: `python -m benchmarks.lazy_rows --mxnet PYTHON`.

Measures ascending, shuffled and duplicate rows against MXNet's own lazy Adam (where `--mxnet`
says), torch's SparseAdam and optax's dense Adam (where installed), and the same rows in a table of
a quarter of the height. Prints JSON, and writes it where `--out` says.
"""

import argparse
import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmxopt as mxopt
from benchmarks.mxnet_process import MXNetProcess
from benchmarks.timing import interleaved, seconds

RATE, WIDTH = 1e-3, 64
Indices = np.ndarray[Any, np.dtype[np.int32]]
Tick = Callable[[], None]


def skip() -> None:
    """Show no progress."""


def drawn(kind: str, rows: int, height: int) -> Indices:
    """Return the rows of a gradient; of duplicates there are about three a row."""
    generator = np.random.default_rng(0)
    if kind == "duplicate":
        return generator.integers(0, max(rows // 3, 1), rows).astype(np.int32) * (height // rows)
    indices = generator.choice(height, rows, replace=False).astype(np.int32)
    return np.sort(indices) if kind == "ascending" else indices


def ours(indices: Indices, height: int) -> Callable[[], float]:
    """One step of lazy Adam, donated."""
    opt, table = mxopt.Adam(learning_rate=RATE), jnp.zeros((height, WIDTH))
    values = np.random.default_rng(1).normal(size=(len(indices), WIDTH)).astype(np.float32)
    grad = mxopt.RowSparse(indices, values, table.shape)
    held: dict[str, Any] = {"all": (table, opt.init(table))}

    def step() -> None:
        weight, state = held["all"]
        held["all"] = jax.block_until_ready(opt.step(weight, grad, state, donate=True))

    return lambda: seconds(step)


def optax_dense(indices: Indices, height: int) -> Callable[[], float]:
    """One step of optax's Adam on the dense gradient, donated."""
    import optax

    opt, table = optax.adam(RATE), jnp.zeros((height, WIDTH))
    grad = mxopt.RowSparse(indices, jnp.ones((len(indices), WIDTH)), table.shape).todense()
    held: dict[str, Any] = {"all": (table, opt.init(table))}

    def update(weight: Any, state: Any, grad: Any) -> Any:
        changes, state = opt.update(grad, state, weight)
        return optax.apply_updates(weight, changes), state

    run = jax.jit(update, donate_argnums=(0, 1))

    def step() -> None:
        held["all"] = jax.block_until_ready(run(*held["all"], grad))

    return lambda: seconds(step)


def torch_sparse(indices: Indices, height: int) -> Callable[[], float]:
    """One step of torch's SparseAdam, which sums duplicates itself."""
    import torch

    table = torch.nn.Parameter(torch.zeros(height, WIDTH))
    opt = torch.optim.SparseAdam([table], lr=RATE)
    rows, values = torch.tensor(indices)[None].long(), torch.randn(len(indices), WIDTH)

    def step() -> None:
        table.grad = torch.sparse_coo_tensor(rows, values, table.shape)
        opt.step()

    return lambda: seconds(step)


def measured(
    kind: str, rows: int, height: int, rounds: int, mxnet: pathlib.Path | None, tick: Tick = skip
) -> dict[str, Any]:
    """One case: milliseconds of each contender, and ours as a ratio to each."""
    indices = drawn(kind, rows, height)
    runs = {"jaxmxopt": ours(indices, height)}
    if importlib.util.find_spec("torch"):
        runs["torch"] = torch_sparse(indices, height)
    process = None
    if mxnet is not None and kind != "duplicate":
        case = {"kind": "lazy", "rows": rows, "shape": [height, WIDTH]}
        runs["mxnet"] = process = MXNetProcess(mxnet, case)
    try:
        found = interleaved(runs, rounds, tick)
    finally:
        if process is not None:
            process.close()
    return _row(f"{rows} {kind} rows of {height}", found)


def height(rows: int, height: int, rounds: int, tick: Tick = skip) -> dict[str, Any]:
    """Measure the rows of the whole table against those of a quarter."""
    runs = {
        "jaxmxopt": ours(drawn("ascending", rows, height), height),
        "a quarter of the height": ours(drawn("ascending", rows, height // 4), height // 4),
    }
    return _row(f"height, {rows} rows of {height}", interleaved(runs, rounds, tick))


def density(rows: int, height: int, rounds: int, tick: Tick = skip) -> dict[str, Any]:
    """Measure some rows against the whole table, which leaves nothing of the rows in the caches."""
    indices = drawn("ascending", rows, height)
    runs = {"jaxmxopt": ours(indices, height), "optax, dense": optax_dense(indices, height)}
    return _row(f"density, {rows} rows of {height}", interleaved(runs, rounds, tick))


def _row(case: str, milliseconds: Mapping[str, float]) -> dict[str, Any]:
    own = milliseconds["jaxmxopt"]
    ratios = {name: own / taken for name, taken in milliseconds.items() if name != "jaxmxopt"}
    return {"case": case, "milliseconds": dict(milliseconds), "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mxnet", type=pathlib.Path, help="the Python of MXNet's environment")
    parser.add_argument("--height", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    sizes = options.height, options.rounds
    found = [
        measured(kind, options.rows * (1 + (kind == "duplicate")), *sizes, options.mxnet)
        for kind in ("ascending", "shuffled", "duplicate")
    ]
    found.append(height(options.rows, *sizes))
    if importlib.util.find_spec("optax"):
        found.append(density(options.rows, *sizes))
    text = json.dumps(found, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
