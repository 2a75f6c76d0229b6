"""Writes MXNet's files, real ones; started by ``record_files.py`` in MXNet's environment."""

from __future__ import annotations

import argparse
import copy
import json
import pickle
import random
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from _training import CASES, SHAPES, STEPS, TRAININGS, Training

VERSION = {"1.9.1": "1.9.1", "2.0.0beta1": "2.0.0b1"}[mx.__version__]
Expected = dict[str, np.ndarray]

DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")


def rng_of(name: str) -> np.random.Generator:
    """Numbers that depend on a name alone."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def values(name: str, shape: Sequence[int], dtype: str = "float32") -> np.ndarray:
    """Drawn values."""
    return (3 * rng_of(name).standard_normal(shape)).astype(dtype)


class Params:
    """Writes `.params` files, and what is in them."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.expected: Expected = {}

    def write(self, file: str, arrays: Any, save: Callable[[str, Any], None]) -> None:
        """Writes one file; `arrays` is a list, a dict or a single array."""
        path = self.out / file
        path.parent.mkdir(parents=True, exist_ok=True)
        save(str(path), arrays)
        if not isinstance(arrays, (list, dict)):
            arrays = [arrays]
        items = arrays.items() if isinstance(arrays, dict) else enumerate(arrays)
        for key, array in items:
            self.note(f"{file}/{key}", array)

    def note(self, key: str, array: Any) -> None:
        """Notes an array; of sparse ones their parts."""
        if getattr(array, "stype", "default") == "default":
            self.expected[key] = array.asnumpy()
            return
        self.expected[f"{key}/data"] = array.data.asnumpy()
        self.expected[f"{key}/indices"] = array.indices.asnumpy()
        self.expected[f"{key}/shape"] = np.array(array.shape)
        if array.stype == "csr":
            self.expected[f"{key}/indptr"] = array.indptr.asnumpy()


def _params_of_both(params: Params) -> None:
    array = mx.nd.array
    kinds = {dtype: array(values(dtype, (2, 3), dtype), dtype=dtype) for dtype in DTYPES}
    for kind, wide in (("float16", 65504), ("float32", 3e38), ("int64", 2**53 + 1)):
        kinds[f"large {kind}"] = array(np.array([wide], kind), dtype=kind)
    kinds["named ä"] = array(np.array([np.nan, np.inf, -np.inf, -0.0], np.float32))
    params.write("dtypes.params", kinds, mx.nd.save)
    params.write("list.params", [array(values("0", (4,))), array(values("1", (1, 2)))], mx.nd.save)
    params.write("single.params", array(values("single", (3, 2))), mx.nd.save)
    params.write("empty_list.params", [], mx.nd.save)


def params_of_1(out: Path) -> Expected:
    """Writes the `.params` files of MXNet 1."""
    params = Params(out)
    _params_of_both(params)
    params.write("empty_dict.params", {}, mx.nd.save)
    with mx.util.np_shape(True):
        scalar = {"scalar": mx.nd.array(2.5).reshape(()), "empty": mx.nd.zeros((0, 3))}
        params.write("np_shape.params", scalar, mx.nd.save)
    dense, rows = values("rows", (2, 3)), np.array([1, 4])
    sparse = {
        "row_sparse": mx.nd.sparse.row_sparse_array((dense, rows), shape=(6, 3)),
        "no rows": mx.nd.sparse.zeros("row_sparse", (4, 3)),
        "vector": mx.nd.sparse.row_sparse_array((dense[0], [0, 2, 5]), shape=(7,)),
        "half": mx.nd.sparse.row_sparse_array((dense, rows), shape=(6, 3), dtype="float16"),
        "csr": mx.nd.sparse.csr_matrix(np.diag([1.0, 0.0, 2.0]).astype("float32")),
        "csr zero": mx.nd.sparse.zeros("csr", (4, 3)),
    }
    params.write("sparse.params", sparse, mx.nd.save)

    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Dense(3, in_units=4), mx.gluon.nn.BatchNorm(in_channels=3))
    net.initialize(mx.init.Constant(0.25))
    net.save_parameters(str(out / "gluon.params"))
    for name, param in net._collect_params_with_prefix().items():
        params.note(f"gluon.params/{name}", param.data())

    symbol = mx.sym.BatchNorm(mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="fc"))
    module = mx.mod.Module(symbol, label_names=None)
    module.bind([("data", (2, 4))])
    module.init_params(mx.init.Constant(0.5))
    module.save_checkpoint(str(out / "module"), 1)
    (out / "module-symbol.json").unlink()
    for kind, arrays in zip(("arg", "aux"), module.get_params(), strict=True):
        for name, array in arrays.items():
            params.note(f"module-0001.params/{kind}:{name}", array)
    return params.expected


def params_of_2(out: Path) -> Expected:
    """Writes the `.params`, `.npz` and `.npy` files of MXNet 2."""
    params = Params(out)
    _params_of_both(params)
    npx = mx.npx
    arrays = {dtype: mx.np.array(values(dtype, (2, 3), dtype), dtype=dtype) for dtype in DTYPES}
    arrays |= {"scalar": mx.np.array(2.5), "empty": mx.np.zeros((0, 3))}
    params.write("named.npz", arrays, lambda path, a: npx.savez(path, **a))
    params.write("empty.npz", {}, lambda path, a: npx.savez(path))
    params.write("one.npy", mx.np.array(values("one", (2, 2))), npx.save)
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(3, in_units=4), mx.gluon.nn.BatchNorm(in_channels=3))
    net.initialize(mx.init.Constant(0.25))
    net.save_parameters(str(out / "gluon.params"))
    for name, param in net.collect_params().items():
        params.note(f"gluon.params/{name}", param.data())
    npx.reset_np()
    dense, rows = values("rows", (2, 3)), np.array([1, 4])
    sparse = {
        "row_sparse": mx.nd.sparse.row_sparse_array((dense, rows), shape=(6, 3)),
        "csr": mx.nd.sparse.csr_matrix(np.diag([1.0, 0.0, 2.0]).astype("float32")),
    }
    params.write("sparse.npz", sparse, lambda path, a: npx.savez(path, **a))
    npx.set_np()
    return params.expected


def states_of_1(out: Path) -> None:
    """Writes `.states` files of MXNet 1: protocols, gluon, Module, row sparse, user classes."""
    updater = _stepped(mx.optimizer.Adam(lr_scheduler=mx.lr_scheduler.FactorScheduler(2, 0.5)))
    for protocol in range(6):
        for dump in (False, True):
            kept = (updater.states, updater.optimizer) if dump else updater.states
            name = f"protocol_{protocol}{'_dump' if dump else ''}.states"
            (out / name).write_bytes(pickle.dumps(kept, protocol))
    numbers = mx.optimizer.SGD(momentum=np.float32(0.9), wd=np.float64(1e-4))
    _write(out / "numpy_scalars.states", _stepped(numbers))

    sparse = mx.optimizer.Adam()
    updater = mx.optimizer.get_updater(sparse)
    weight = mx.nd.sparse.row_sparse_array((values("w", (4, 2)), range(4)), shape=(4, 2))
    grad = mx.nd.sparse.row_sparse_array((values("g", (2, 2)), [1, 3]), shape=(4, 2))
    updater(0, grad, weight)
    _write(out / "row_sparse.states", updater)

    class Mine(mx.optimizer.SGD):
        """Somebody's own optimizer."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.mine = {"a": [1, (2.0, "b")]}

    class Slow(mx.lr_scheduler.LRScheduler):
        """Somebody's own scheduler."""

        def __call__(self, num_update: int) -> float:
            return self.base_lr / num_update

    for cls in (Mine, Slow):
        cls.__module__, cls.__qualname__ = "__main__", cls.__name__
        globals()[cls.__name__] = cls
    _write(out / "own_classes.states", _stepped(Mine(momentum=0.9, lr_scheduler=Slow())))

    net = mx.gluon.nn.Sequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Dense(3, in_units=4), mx.gluon.nn.BatchNorm(in_channels=3))
    net.initialize(mx.init.Constant(0.25))
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"wd": 0.1})
    with mx.autograd.record():
        loss = net(mx.nd.array(values("x", (2, 4)))).sum()
    loss.backward()
    trainer.step(2)
    trainer.save_states(str(out / "gluon_trainer.states"))

    for devices in (1, 2):
        symbol = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="fc")
        context = [mx.cpu(i) for i in range(devices)]
        module = mx.mod.Module(mx.sym.MakeLoss(symbol), label_names=None, context=context)
        module.bind([("data", (2, 4))])
        module.init_params(mx.init.Constant(0.5))
        module.init_optimizer(kvstore="local", optimizer_params={"momentum": 0.9})
        module.forward(mx.io.DataBatch([mx.nd.array(values("x", (2, 4)))]), is_train=True)
        module.backward()
        module.update()
        module.save_optimizer_states(str(out / f"module_{devices}.states"))


def states_of_2(out: Path) -> None:
    """Writes `.states` files of MXNet 2."""
    net = mx.gluon.nn.Dense(3, in_units=4)
    net.initialize(mx.init.Constant(0.25))
    scheduler = mx.lr_scheduler.CosineScheduler(100, base_lr=0.1)
    trainer = mx.gluon.Trainer(
        net.collect_params(), "adam", {"lr_scheduler": scheduler, "learning_rate": None}
    )
    with mx.autograd.record():
        loss = net(mx.np.array(values("x", (2, 4)))).sum()
    loss.backward()
    trainer.step(2)
    trainer.save_states(str(out / "gluon_trainer.states"))
    made = {
        "rmsprop": mx.optimizer.RMSProp(),
        "rmsprop_centered": mx.optimizer.RMSProp(centered=True),
        "adamw": mx.optimizer.AdamW(),
        "sgd_half": mx.optimizer.SGD(momentum=0.9, multi_precision=True),
        "groupadagrad": mx.optimizer.contrib.GroupAdaGrad(),
    }
    for name, optimizer in made.items():
        half = name.endswith("_half")
        _write(out / f"{name}.states", _stepped(optimizer, "float16" if half else "float32"))


def _stepped(optimizer: Any, dtype: str = "float32") -> Any:
    """An updater that has made three steps with two weights."""
    updater = mx.optimizer.get_updater(optimizer)
    array = mx.np.array if VERSION == "2.0.0b1" else mx.nd.array
    weights = [array(values(f"w{k}", (2, 3), dtype), dtype=dtype) for k in range(2)]
    for step in range(3):
        grads = [array(values(f"g{step}{k}", (2, 3), dtype), dtype=dtype) for k in range(2)]
        updater([0, 1], grads, weights)
    return updater


def _write(path: Path, updater: Any) -> None:
    path.write_bytes(updater.get_states(dump_optimizer=True))


def trained(name: str, training: Training) -> dict[str, np.ndarray]:
    """Trains with one algorithm, saves in the middle, and goes on.

    Returns:
        The arrays of its file: see the README.
    """
    arrays: dict[str, np.ndarray] = {"meta": np.array(json.dumps(training.meta(VERSION)))}
    for case in CASES:
        if case.half and not training.half:
            continue
        recorded = _trained_case(f"{name}/{case.name}", training, case)
        arrays |= {f"{case.name}/{key}": value for key, value in recorded.items()}
    return arrays


def _trained_case(seed: str, training: Training, case: Any) -> dict[str, np.ndarray]:
    rng, dtype = rng_of(seed), "float16" if case.half else "float32"
    shapes = SHAPES[: training.weights]
    array = mx.np.array if VERSION == "2.0.0b1" else mx.nd.array
    weights = [array(rng.standard_normal(shape).astype(dtype), dtype=dtype) for shape in shapes]
    grads = [(rng.standard_normal((2 * STEPS, *shape)) * 0.5).astype(dtype) for shape in shapes]
    updater = mx.optimizer.get_updater(optimizer_of(training, case, begin=case.begin))
    indices = list(range(len(shapes)))

    def train(steps: range) -> None:
        for step in steps:
            updater(list(indices), [array(g[step], dtype=dtype) for g in grads], weights)

    train(range(STEPS))
    saved = updater.get_states(dump_optimizer=case.dump)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.params"
        classic = [w.as_nd_ndarray() if VERSION == "2.0.0b1" else w for w in weights]
        mx.nd.save(str(path), {str(k): weight for k, weight in enumerate(classic)})
        saved_params = path.read_bytes()
    recorded = {
        "states": np.frombuffer(saved, np.uint8),
        "params": np.frombuffer(saved_params, np.uint8),
    }
    if not case.dump:
        # The counts are not in the file: they are given again.
        updater = mx.optimizer.get_updater(optimizer_of(training, case, begin=case.begin + STEPS))
        updater.set_states(saved)
    train(range(STEPS, 2 * STEPS))
    for k in indices:
        recorded[f"grad/{k}"] = grads[k][STEPS:]
        recorded[f"weight/{k}"] = weights[k].asnumpy()
        if not np.isfinite(recorded[f"weight/{k}"]).all():
            raise RuntimeError(f"{seed}: weight {k} is not finite")
    return recorded


def optimizer_of(training: Training, case: Any, begin: int) -> Any:
    kwargs = copy.deepcopy(training.kwargs(case)) | {"begin_num_update": begin}
    scheduler = kwargs.pop("lr_scheduler", None)
    if scheduler is not None:
        kwargs["lr_scheduler"] = getattr(mx.lr_scheduler, scheduler[0])(**scheduler[1])
    optimizer = mx.optimizer.create(training.cls, **kwargs)
    if case.multipliers:
        optimizer.set_lr_mult(dict(training.lr_mult))
        optimizer.set_wd_mult(dict(training.wd_mult))
    return optimizer


def main() -> None:
    """Writes the files of this MXNet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    random.seed(0)
    mx.random.seed(0)
    folder = out / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    if VERSION == "1.9.1":
        expected = params_of_1(folder)
        states_of_1(folder)
    else:
        mx.npx.set_np()
        expected = params_of_2(folder)
        states_of_2(folder)
    np.savez_compressed(folder / "expected.npz", **expected)
    (out / "training").mkdir(exist_ok=True)
    for name, training in TRAININGS.items():
        if training.mxnet == VERSION:
            np.savez_compressed(out / "training" / f"{name}.npz", **trained(name, training))
            print(f"{name}: recorded")


if __name__ == "__main__":
    main()
