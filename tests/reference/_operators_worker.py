"""Calls MXNet's update operators on drawn arrays; started by ``record_operators.py``."""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

VERSION = {"1.9.1": "1.9.1", "2.0.0beta1": "2.0.0b1"}[mx.__version__]
SPACES = (mx.nd, mx.nd.sparse, mx.nd.contrib)
FAMILY = re.compile(r".*_update(_phase[12])?|multi_(?!.*index).*|all_finite|reset_arrays")
# What an operator has from MXNet's calling, and what is another operator's.
NOT_OURS = {"out", "name", "kwargs", "data", "index_update"}

SHAPE, SHAPES, HALF, FULL = (4, 8), ((4, 8), (5,)), np.float16, np.float32
USUAL = {"lr": 0.1, "wd": 0.01, "rescale_grad": 0.5}
CLIPPED = {**USUAL, "clip_gradient": 0.3}
PLAIN = {"lr": 0.1}
LISTS = {"lrs": [0.1, 0.05], "wds": [0.01, 0.0]}
LISTS_PLAIN = {"lrs": [0.1, 0.1], "wds": [0.0, 0.0]}
ETAS = {**LISTS, "lrs": [0.5, 1.0], "etas": [0.1, 0.05], "rescale_grad": 0.5}
STEPS = {**LISTS, "step_count": [1, 3]}
MOMENTUM = {"momentum": 0.9}

# What is kept beside weight and gradient; names in VARIANCE are drawn above 0.
MOM, MOMENTS, MASTER = ("mom",), ("mean", "var"), ("weight32",)
VARIANCE = ("var", "n", "v", "d", "history")

Calls = list[dict[str, Any]]
SINGLE: dict[str, tuple[tuple[str, ...], Calls]] = {
    "sgd_update": ((), [PLAIN, USUAL, CLIPPED]),
    "mp_sgd_update": (MASTER, [PLAIN, USUAL, CLIPPED]),
    "sgd_mom_update": (MOM, [PLAIN, {**USUAL, **MOMENTUM}, {**CLIPPED, **MOMENTUM}]),
    "mp_sgd_mom_update": ((*MOM, *MASTER), [PLAIN, {**CLIPPED, **MOMENTUM}]),
    "nag_mom_update": (MOM, [{**USUAL, **MOMENTUM}, {**CLIPPED, **MOMENTUM}]),
    "mp_nag_mom_update": ((*MOM, *MASTER), [{**USUAL, **MOMENTUM}, {**CLIPPED, **MOMENTUM}]),
    "signsgd_update": ((), [PLAIN, CLIPPED]),
    "signum_update": (MOM, [{**USUAL, **MOMENTUM}, {**CLIPPED, **MOMENTUM, "wd_lh": 0.02}]),
    "ftml_update": (
        ("d", "v", "z"),
        [{**PLAIN, "t": 1}, {**USUAL, "t": 20}, {**USUAL, "clip_grad": 0.3, "t": 5}],
    ),
    "adam_update": (MOMENTS, [PLAIN, USUAL, CLIPPED]),
    "rmsprop_update": (("n",), [PLAIN, USUAL, {**CLIPPED, "clip_weights": 0.8}]),
    "rmspropalex_update": (("n", "g", "delta"), [PLAIN, {**CLIPPED, "clip_weights": 0.8}]),
    "ftrl_update": (("z", "n"), [PLAIN, CLIPPED]),
    "lamb_update_phase1": (
        MOMENTS,
        [
            {"t": 2, "wd": 0.01},
            {"t": 9, "wd": 0.01, "bias_correction": False},
            {"t": 30, "wd": 0.0},
        ],
    ),
    "mp_lamb_update_phase1": ((*MOMENTS, *MASTER), [{"t": 2, "wd": 0.01, "clip_gradient": 0.3}]),
    "adamw_update": (
        MOMENTS,
        [
            {"rescale_grad": 0.5, "lr": 0.5, "eta": 0.1},
            {"rescale_grad": 0.5, "lr": 0.5, "eta": 0.1, "wd": 0.01, "clip_gradient": 0.3},
            *({"rescale_grad": bad, "lr": 1.0, "eta": 0.1} for bad in (0.0, np.nan, np.inf)),
        ],
    ),
    "mp_adamw_update": (
        (*MOMENTS, *MASTER),
        [{"rescale_grad": 0.5, "lr": 0.5, "eta": 0.1, "wd": 0.01, "clip_gradient": 0.3}],
    ),
    "adabelief_update": (
        MOMENTS,
        [{"rescale_grad": 0.5, "lr": 0.5, "eta": 0.1, "wd": 0.01, "clip_gradient": 0.3}],
    ),
    "mp_adabelief_update": (
        (*MOMENTS, *MASTER),
        [{"rescale_grad": 0.5, "lr": 0.5, "eta": 0.1, "wd": 0.01, "clip_gradient": 0.3}],
    ),
}
# With row-sparse gradients; Ftrl is lazy only where weight and states are row-sparse too.
SPARSE: dict[str, tuple[tuple[str, ...], Calls]] = {
    "sgd_update": ((), [USUAL, {**CLIPPED, "lazy_update": False}]),
    "sgd_mom_update": (MOM, [{**CLIPPED, **MOMENTUM}]),
    "adam_update": (MOMENTS, [USUAL, {**USUAL, "lazy_update": False}, CLIPPED]),
    "ftrl_update": (("z", "n"), [CLIPPED]),
    "adagrad_update": (("history",), [PLAIN, {**PLAIN, "rescale_grad": 0.5, "clip_gradient": 0.3}]),
    "group_adagrad_update": (("history",), [PLAIN, {**PLAIN, "clip_gradient": 0.3}]),
}
# Data come weight by weight.
WOVEN: dict[str, tuple[tuple[str, ...], Calls]] = {
    "multi_sgd_update": ((), [LISTS_PLAIN, {**LISTS, "rescale_grad": 0.5, "clip_gradient": 0.3}]),
    "multi_sgd_mom_update": (MOM, [{**LISTS, **MOMENTUM}]),
    "multi_mp_sgd_update": (MASTER, [{**LISTS, "rescale_grad": 0.5}]),
    "multi_mp_sgd_mom_update": ((*MOM, *MASTER), [{**LISTS, **MOMENTUM, "clip_gradient": 0.3}]),
}
# A list of arrays for every argument.
LISTED: dict[str, tuple[tuple[str, ...], Calls]] = {
    "multi_adamw_update": (MOMENTS, [ETAS, {**ETAS, "clip_gradient": 0.3}]),
    "multi_mp_adamw_update": ((*MOMENTS, *MASTER), [{**ETAS, "clip_gradient": 0.3}]),
    "multi_adabelief_update": (MOMENTS, [{**ETAS, "clip_gradient": 0.3}]),
    "multi_mp_adabelief_update": ((*MOMENTS, *MASTER), [ETAS]),
    "multi_lamb_update": (
        MOMENTS,
        [STEPS, {**STEPS, "lower_bound": 0.5, "upper_bound": 2.0, "bias_correction": False}],
    ),
    "multi_mp_lamb_update": ((*MOMENTS, *MASTER), [{**STEPS, "clip_gradient": 0.3}]),
    "multi_lans_update": (MOMENTS, [{**STEPS, "rescale_grad": 0.5}]),
    "multi_mp_lans_update": ((*MOMENTS, *MASTER), [{**STEPS, "upper_bound": 2.0}]),
}
# Sums come in another order, and one quotient of a late phase 1 is of double precision in MXNet.
NEAR = re.compile(r"(group_adagrad|multi_(mp_)?(lamb|lans))_update.*|multi_sum_sq.*|lamb.*phase1-2")
ONLY_2 = re.compile(r".*(adabelief|lans).*")


def operator(name: str) -> Any:
    """The operator of a name, as MXNet's users call it: later spaces know more kinds of arrays."""
    return next(getattr(space, name) for space in reversed(SPACES) if hasattr(space, name))


class Recorder:
    """Calls operators and keeps what went in and came out."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.cases: list[dict[str, Any]] = []
        self.trainings: dict[str, Any] = {}

    def keep(self, case: str, array: Any) -> int:
        """Keep an array of a case, under its number."""
        number = sum(key.startswith(f"{case}/") for key in self.arrays)
        self.arrays[f"{case}/{number}"] = np.array(array)
        return number

    def add(self, case: str, op: str, args: Any, kwargs: Any, new: list[Any]) -> None:
        """Keep a case whose arguments are kept already."""
        out = [self.keep(case, array.asnumpy()) for array in new]
        near = bool(NEAR.fullmatch(case))
        entry = {"id": case, "op": op, "args": args, "kwargs": kwargs, "out": out, "near": near}
        self.cases.append(entry)


def drawn(rng: Any, name: str, shape: Any, half: bool) -> np.ndarray:
    """Draw a weight, a gradient or a state."""
    array = rng.normal(size=shape).astype(FULL)
    if name in VARIANCE:
        # Above the square of the mean gradient, whose difference centered RMSProp takes a root of.
        array = np.abs(array) + FULL(1.0)
    if name == "g":
        array = array * FULL(0.1)
    return array.astype(HALF) if half and name in ("weight", "grad") else array


def rows_of(array: np.ndarray) -> Any:
    """An array as a row-sparse one with all its rows."""
    return mx.nd.array(array).tostype("row_sparse")


def single(recorder: Recorder, op: str, given: Any, sparse: bool = False) -> None:
    """Record calls with one weight."""
    states, calls = given
    names = ("weight", "grad", *states)
    for number, kwargs in enumerate(calls):
        case = f"{op}-{'rows-' if sparse else ''}{number}"
        rng = np.random.default_rng(zlib.crc32(case.encode()))
        grouped = op == "group_adagrad_update"
        arrays = [
            drawn(rng, n, (SHAPE[0], 1) if grouped and n == "history" else SHAPE, "mp_" in op)
            for n in names
        ]
        made = [mx.nd.array(array, dtype=array.dtype) for array in arrays]
        args: list[Any] = []
        for n, (name, array) in enumerate(zip(names, arrays, strict=True)):
            if not (sparse and name == "grad"):
                args.append(recorder.keep(case, array))
                continue
            rows = np.array([3, 0] if number % 2 == 0 else [1], np.int64)
            rows.sort()
            made[n] = mx.nd.sparse.row_sparse_array((array[rows], rows), shape=SHAPE)
            args.append([recorder.keep(case, rows), recorder.keep(case, array[rows])])
        if sparse and op == "ftrl_update":
            made = [made[1] if n == 1 else rows_of(array) for n, array in enumerate(arrays)]
        phase1 = op.endswith("phase1")
        out = mx.nd.zeros(SHAPE) if phase1 else made[0]
        operator(op)(*made, out=out, **kwargs)
        kept = made[2:-1] if phase1 and "mp_" in op else made[2:]
        recorder.add(case, op, args, kwargs, [out, *kept])


def phase2(recorder: Recorder) -> None:
    """Record the second phase of LAMB, of whose master MXNet writes nothing."""
    for op in ("lamb_update_phase2", "mp_lamb_update_phase2"):
        for number, (norms, bounds) in enumerate(
            [((2.0, 3.0), {}), ((0.3, 3.0), {"lower_bound": 0.5}), ((0.0, 3.0), {})]
        ):
            case = f"{op}-{number}"
            rng = np.random.default_rng(zlib.crc32(case.encode()))
            names = ("weight", "direction", "weight32") if "mp_" in op else ("weight", "direction")
            weight, g, *master = (drawn(rng, name, SHAPE, "mp_" in op) for name in names)
            given = [weight, g, *(np.array([norm], FULL) for norm in norms), *master]
            made = [mx.nd.array(array, dtype=array.dtype) for array in given]
            args = [recorder.keep(case, array) for array in given]
            kwargs = {"lr": 0.1, **bounds}
            operator(op)(*made, out=made[0], **kwargs)
            recorder.add(case, op, args, kwargs, made[:1])


def several(recorder: Recorder, op: str, given: Any, woven: bool) -> None:
    """Record calls with two weights."""
    states, calls = given
    for number, kwargs in enumerate(calls):
        case = f"{op}-{number}"
        rng = np.random.default_rng(zlib.crc32(case.encode()))
        columns = [
            [drawn(rng, name, shape, "mp_" in op) for shape in SHAPES]
            for name in ("weight", "grad", *states)
        ]
        made = [[mx.nd.array(array, dtype=array.dtype) for array in column] for column in columns]
        args: list[Any] = [[recorder.keep(case, a) for a in column] for column in columns]
        if woven:
            args = [one for row in zip(*args, strict=True) for one in row]
            data = [one for row in zip(*made, strict=True) for one in row]
            kwargs = {**kwargs, "num_weights": len(SHAPES)}
            if op.startswith("preloaded"):
                for name in ("lrs", "wds"):
                    rates = np.array(kwargs.pop(name), FULL)
                    args.append(recorder.keep(case, rates))
                    data.append(mx.nd.array(rates))
            operator(op)(*data, out=made[0], **kwargs)
        else:
            operator(op)(*made, out=made[0], **kwargs)
        new = [one for column in (made[0], *made[2:]) for one in column]
        recorder.add(case, op, args, kwargs, new)


def others(recorder: Recorder) -> None:
    """Record the operators of whole lists of arrays."""
    rng = np.random.default_rng(zlib.crc32(b"sums"))
    good = [rng.normal(size=shape).astype(FULL) for shape in SHAPES]
    bad = [good[0], np.array([1.0, np.inf, 0.0], FULL)]
    nan = [np.array([[np.nan, 2.0]], FULL), good[1]]
    for number, arrays in enumerate((good, bad, nan)):
        for op, kwargs in (("multi_all_finite", {"num_arrays": 2}), ("all_finite", {})):
            case = f"{op}-{number}"
            given = arrays if kwargs else arrays[1 - number // 2 :][:1]
            args = [recorder.keep(case, array) for array in given]
            made = [mx.nd.array(array) for array in given]
            recorder.add(case, op, args, kwargs, [operator(op)(*made, **kwargs)])
    case, kwargs = "multi_sum_sq-0", {"num_arrays": 2}
    args = [recorder.keep(case, array) for array in good]
    made = [mx.nd.array(array) for array in good]
    recorder.add(case, "multi_sum_sq", args, kwargs, [mx.nd.multi_sum_sq(*made, **kwargs)])
    for number, kwargs in enumerate(
        [{"eta": 0.01, "eps": 0.001}, {"eta": 0.01, "eps": 0.0, "rescale_grad": 0.5}]
    ):
        case = f"multi_lars-{number}"
        given = [np.abs(rng.normal(size=6)).astype(FULL) for _ in range(4)]
        given[1][0] = given[2][1] = 0
        args = [recorder.keep(case, array) for array in given]
        out = mx.nd.multi_lars(*map(mx.nd.array, given), **kwargs)
        recorder.add(case, "multi_lars", args, kwargs, [out])


def scaled(recorder: Recorder) -> None:
    """Record the scale of sums of squares, which only 2.x has."""
    rng = np.random.default_rng(zlib.crc32(b"scaled"))
    arrays = [rng.normal(size=shape).astype(FULL) for shape in SHAPES]
    case, kwargs = "multi_sum_sq-1", {"num_arrays": 2, "scale": 0.5}
    args = [recorder.keep(case, array) for array in arrays]
    out = mx.nd.multi_sum_sq(*map(mx.nd.array, arrays), **kwargs)
    recorder.add(case, "multi_sum_sq", args, kwargs, [out])


def bert_adam() -> type:
    """An optimizer as gluon-nlp's, in our own words, where gluon-nlp has it."""

    class BERTAdam(mx.optimizer.Optimizer):
        def __init__(self, learning_rate, beta1, beta2, epsilon, **kwargs):
            super().__init__(learning_rate=learning_rate, **kwargs)
            self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
            self.aggregate_num = 4

        def create_state(self, index, weight):
            return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

        def create_state_multi_precision(self, index, weight):
            if weight.dtype != HALF:
                return self.create_state(index, weight)
            master = weight.astype(FULL)
            return self.create_state(index, master), master

        def update_multi_precision(self, index, weight, grad, state):
            self._update_count(index)
            rates = {"etas": self._get_lrs(index), "wds": self._get_wds(index)}
            # gluon-nlp leaves an array of one element in rescale_grad.
            if not isinstance(self.rescale_grad, mx.nd.NDArray):
                self.rescale_grad = mx.nd.full((1,), self.rescale_grad)
            given = {name: getattr(self, name) for name in ("beta1", "beta2", "epsilon")}
            given |= {"rescale_grad": self.rescale_grad, "lrs": [1.0] * len(index), **rates}
            if self.clip_gradient:
                given["clip_gradient"] = self.clip_gradient
            if weight[0].dtype == HALF:
                moments, masters = zip(*state, strict=True)
                lists = (*zip(*moments, strict=True), masters)
                operator("multi_mp_adamw_update")(weight, grad, *lists, out=weight, **given)
            else:
                lists = zip(*state, strict=True)
                operator("multi_adamw_update")(weight, grad, *lists, out=weight, **given)

    BERTAdam.__module__, BERTAdam.__qualname__ = "gluonnlp.optimizer.bert_adam", "BERTAdam"
    for name in ("gluonnlp", "gluonnlp.optimizer", "gluonnlp.optimizer.bert_adam"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[BERTAdam.__module__].BERTAdam = BERTAdam
    return BERTAdam


def trained(recorder: Recorder) -> None:
    """Record some steps of BERTAdam, and its `.states` after two of them."""
    kwargs = {"learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-6, "wd": 0.01}
    kwargs |= {"rescale_grad": 0.5, "clip_gradient": 0.75, "multi_precision": True}
    rng = np.random.default_rng(zlib.crc32(b"bertadam"))
    updater = mx.optimizer.get_updater(bert_adam()(**kwargs))
    dtypes = (FULL, HALF, FULL)
    weights = [mx.nd.array(rng.normal(size=(3, 2)), dtype=dtype) for dtype in dtypes]
    steps: list[dict[str, Any]] = []
    for step in range(4):
        grads = [rng.normal(size=(3, 2)).astype(dtype) for dtype in dtypes]
        before = [recorder.keep("bertadam", weight.asnumpy()) for weight in weights]
        given = [recorder.keep("bertadam", grad) for grad in grads]
        made = [mx.nd.array(grad, dtype=grad.dtype) for grad in grads]
        updater(list(range(len(weights))), made, weights)
        after = [recorder.keep("bertadam", weight.asnumpy()) for weight in weights]
        steps.append({"weights": before, "grads": given, "new": after})
        if step == 1:
            states = np.frombuffer(updater.get_states(dump_optimizer=True), np.uint8)
    recorder.trainings["bertadam"] = {
        "kwargs": kwargs,
        "steps": steps,
        "states_after": 2,
        "states": recorder.keep("bertadam", states),
    }


def signatures() -> dict[str, dict[str, Any]]:
    """The arguments of every operator of the family, with their defaults, None for none."""
    found: dict[str, dict[str, Any]] = {}
    for space in SPACES:
        for name in filter(FAMILY.fullmatch, dir(space)):
            function = getattr(space, name)
            texts = [
                function.__doc__ or "",
                getattr(mx.nd._internal, f"_{name}", None).__doc__ or "",
            ]
            wrapped = inspect.signature(function).parameters
            arguments: dict[str, Any] = {}
            for n, parameter in wrapped.items() if space is mx.nd.contrib else ():
                needed = parameter.default is inspect.Parameter.empty
                arguments[n] = None if needed else str(parameter.default)
            for text in texts:
                for line in text.splitlines():
                    told = re.fullmatch(r"(\w+) : .*?(?:, default=(.*))?", line)
                    if told and not (space is mx.nd.contrib and told[1] in RENAMED):
                        arguments[told[1]] = told[2] and told[2].strip("'")
            kept = {n: d for n, d in arguments.items() if n not in NOT_OURS}
            found.setdefault(name, kept)
    return {name: kept for name, kept in found.items() if name not in NOT_OURS}


# What the functions of `mx.nd.contrib` call otherwise than the operators below them.
RENAMED = ("learning_rates", "num_weights", "num_tensors", "args")


def main() -> None:
    """Record all that belongs to this version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    recorder, first = Recorder(), VERSION == "1.9.1"

    def ours(table: dict[str, Any]) -> list[tuple[str, Any]]:
        return [item for item in table.items() if bool(ONLY_2.fullmatch(item[0])) is not first]

    for op, given in ours(SINGLE):
        single(recorder, op, given)
    for op, given in ours(LISTED):
        several(recorder, op, given, woven=False)
    if first:
        phase2(recorder)
        others(recorder)
        trained(recorder)
        for op, given in SPARSE.items():
            single(recorder, op, given, sparse=True)
        for op, given in WOVEN.items():
            several(recorder, op, given, woven=True)
            several(recorder, f"preloaded_{op}", given, woven=True)
    else:
        scaled(recorder)
    meta = {"cases": recorder.cases, "signatures": signatures(), "trainings": recorder.trainings}
    np.savez_compressed(out, meta=json.dumps(meta), **recorder.arrays)


if __name__ == "__main__":
    main()
