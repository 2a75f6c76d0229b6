"""Runs the drawn configurations in MXNet; started by ``record.py`` in MXNet's environment."""

from __future__ import annotations

import argparse
import copy
import functools
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from _cases import Case, draw_cases, draw_schedules
from _recordings import RECORDINGS

Arrays = dict[str, np.ndarray]

VERSION = {"1.9.1": "1.9.1", "2.0.0beta1": "2.0.0b1"}[mx.__version__]
EXTRA = ("m_schedule", "cur_lr", "last_lr")
"""Numbers that Nadam and LARS keep in the optimizer, one for all weights."""


class Watch:
    """Sees the scalars that go into MXNet's operators, and the noise of SGLD.

    Scalars cross into MXNet as decimal strings, and its parser is one unit of rounding
    off for some of them.
    """

    def __init__(self) -> None:
        self.scalars: set[float] = set()
        self.noise: list[np.ndarray] = []
        modules = [sys.modules[name] for name in sorted(sys.modules) if "mxnet.optimizer" in name]
        for module in [*modules, mx.nd.sparse, mx.nd.contrib]:
            for name in dir(module):
                if name.endswith(("_update", "_phase1", "_phase2")) or name == "clip":
                    setattr(module, name, self._scalars_of(getattr(module, name)))
        optimizers = sys.modules["mxnet.optimizer.optimizer"]
        if hasattr(optimizers, "normal"):
            optimizers.normal = self._noise_of(optimizers.normal)

    def reset(self) -> None:
        """Forgets what it has seen."""
        self.scalars = set()
        self.noise = []

    def exact(self) -> bool:
        """Whether every scalar seen arrived as the float32 nearest to it."""
        return all(_parsed(scalar) == np.float32(scalar) for scalar in self.scalars)

    def _scalars_of(self, operator: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(operator)
        def call(*args: Any, **kwargs: Any) -> Any:
            values = [*args, *kwargs.values()]
            self.scalars.update(float(v) for v in values if isinstance(v, float | np.floating))
            return operator(*args, **kwargs)

        return call

    def _noise_of(self, normal: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(normal)
        def call(*args: Any, **kwargs: Any) -> Any:
            noise = normal(*args, **kwargs)
            self.noise.append(noise.asnumpy())
            return noise

        return call


_plain_sgd = mx.nd.sgd_update


@functools.cache
def _parsed(scalar: float) -> np.float32:
    """What MXNet's operators make of a scalar."""
    zero = mx.nd.zeros((1,))
    return _plain_sgd(zero, zero - 1, lr=scalar, wd=0.0).asnumpy()[0]


def record(name: str, seed: int, watch: Watch) -> Arrays:
    """Records one file.

    Args:
        name: a key of ``RECORDINGS``.
        seed: the seed of the whole recording.
        watch: what sees scalars and noise.

    Returns:
        The arrays of the file, its ``meta`` among them.

    Raises:
        RuntimeError: if no candidate of a case stays finite.
    """
    metas: list[Case] = []
    arrays: Arrays = {}
    for candidates in draw_cases(name, seed, VERSION):
        best: tuple[Case, Arrays] | None = None
        for attempt, case in enumerate(candidates):
            watch.reset()
            recorded = run(case, np.random.default_rng([seed, attempt, _number(case["id"])]), watch)
            if not all(np.isfinite(array).all() for array in recorded.values()):
                continue
            case["exact_scalars"] = watch.exact()
            if best is None or case["exact_scalars"]:
                best = case, recorded
            if case["exact_scalars"]:
                break
        if best is None:
            raise RuntimeError(f"{candidates[0]['id']}: no candidate stays finite")
        case, recorded = best
        metas.append(case)
        arrays |= {f"{case['id']}/{key}": array for key, array in recorded.items()}
    return {"meta": np.array(json.dumps(metas)), **arrays}


def record_schedules(seed: int) -> Arrays:
    """Records the values of the schedulers, each of a fresh one asked in rising order."""
    cases = draw_schedules(seed)
    arrays: Arrays = {}
    for case in cases:
        scheduler = getattr(mx.lr_scheduler, case["class"])(**copy.deepcopy(case["kwargs"]))
        ask = getattr(scheduler, case["method"])
        values = [ask(n) for n in range(case["updates"])]
        arrays[f"{case['id']}/lr"] = np.array(values, np.float64)
    return {"meta": np.array(json.dumps(cases)), **arrays}


def run(case: Case, rng: np.random.Generator, watch: Watch) -> Arrays:
    """Runs one case.

    Args:
        case: as drawn; the layout of the states is added to it.
        rng: where weights and gradients come from.
        watch: sees the noise of SGLD.

    Returns:
        The arrays of the case, under names that lack the case's own.
    """
    mx.random.seed(int(rng.integers(2**31)))
    optimizer = _make_optimizer(case)
    updater = mx.optimizer.get_updater(optimizer)
    weights = _draw_weights(case, rng)
    indices = case["indices"]
    track: dict[str, list[Any]] = {f"weight/{k}": [weights[k].asnumpy()] for k in indices}

    def note(key: str, value: Any) -> None:
        track.setdefault(key, []).append(value)

    for step in range(case["steps"]):
        grads = [_draw_gradient(case, k, step, rng, note) for k in indices]
        seen = len(watch.noise)
        if case["call"] == "list":
            updater(list(indices), grads, weights)
        else:
            for k in indices:
                updater(k, grads[k], weights[k])
        for k, noise in enumerate(watch.noise[seen:]):
            note(f"noise/{k}", noise)
        for k in indices:
            note(f"weight/{k}", weights[k].asnumpy())
            for j, array in enumerate(_leaves(updater.states[k])):
                note(f"state/{k}/{j}", array.asnumpy())
        _note_numbers(optimizer, case, note)
    case["state"] = [_layout(case, k, updater.states[k]) for k in indices]
    arrays = {}
    for key, values in track.items():
        ragged = key.startswith(("rows/", "values/"))
        arrays[key] = np.concatenate(values) if ragged else np.stack(values)
    return arrays


def _make_optimizer(case: Case) -> Any:
    """Makes the optimizer of a case."""
    kwargs = copy.deepcopy(case["kwargs"])
    if case["lr_scheduler"] is not None:
        scheduler = getattr(mx.lr_scheduler, case["lr_scheduler"]["class"])
        kwargs["lr_scheduler"] = scheduler(**copy.deepcopy(case["lr_scheduler"]["kwargs"]))
    if case["param_idx2name"] is not None:
        kwargs["param_idx2name"] = dict(case["param_idx2name"])
    optimizer = mx.optimizer.create(case["class"], **kwargs)
    if case["lr_mult"]:
        optimizer.set_lr_mult(dict(case["lr_mult"]))
    if case["wd_mult"]:
        optimizer.set_wd_mult(dict(case["wd_mult"]))
    return optimizer


def _note_numbers(optimizer: Any, case: Case, note: Callable[[str, Any], None]) -> None:
    """Notes the counts, rates and decays as they stand after a step."""
    indices = case["indices"]
    # A shallow copy with a scheduler of its own: asking changes LARS and the schedulers.
    probe = copy.copy(optimizer)
    probe.lr_scheduler = copy.deepcopy(optimizer.lr_scheduler)
    note("lr", np.array(probe._get_lrs(indices), np.float64))
    note("wd", np.array(probe._get_wds(indices), np.float64))
    note("num_update", np.int64(optimizer.num_update))
    counts = optimizer._index_update_count  # Stays empty with Test, which counts nothing.
    first = optimizer.begin_num_update
    note("counts", np.array([counts.get(k, first) for k in indices], np.int64))
    for name in EXTRA:
        if hasattr(optimizer, name):
            note(f"optimizer/{name}", np.float64(getattr(optimizer, name)))
    if hasattr(optimizer, "cumgrads"):
        for k in indices:
            held, shape = optimizer.cumgrads[k], case["shapes"][k]
            total = held["cum_grad"]
            total = total.asnumpy() if isinstance(total, mx.nd.NDArray) else np.zeros(shape)
            note(f"optimizer/cum_grad/{k}", total.astype(np.float32))
            note(f"optimizer/num_cums/{k}", np.int64(held["num_cums"]))


def _draw_weights(case: Case, rng: np.random.Generator) -> list[Any]:
    """Draws the initial weights; the last one is zero where the case says so."""
    weights = []
    for k, (shape, dtype) in enumerate(zip(case["shapes"], case["dtypes"], strict=True)):
        values = rng.standard_normal(shape).astype(dtype)
        if case["zero_weight"] and k == len(case["shapes"]) - 1:
            values = np.zeros(shape, dtype)
        weight = mx.nd.array(values, dtype=dtype)
        if case["weight_stype"] == "row_sparse":
            rows = np.arange(shape[0])
            weight = mx.nd.sparse.row_sparse_array((values, rows), shape=tuple(shape), dtype=dtype)
        weights.append(weight)
    return weights


def _draw_gradient(
    case: Case, k: int, step: int, rng: np.random.Generator, note: Callable[[str, Any], None]
) -> Any:
    """Draws and notes the gradient of one weight at one step."""
    shape, dtype, kind = case["shapes"][k], case["dtypes"][k], case["gradients"]
    values = rng.standard_normal(shape)
    if kind == "large":
        values[rng.random(shape) < 0.2] *= 20
    elif kind != "normal":
        zero = rng.random(shape) < 0.25
        if kind == "some zeros":
            zero.flat[0] = False
        elif step == 3 and k == 0:
            zero[...] = True
        if kind != "late zeros" or step > 0:
            values[zero] = 0
    values = values.astype(dtype)
    if not case["sparse"]:
        note(f"grad/{k}", values)
        return mx.nd.array(values, dtype=dtype)
    rows = np.sort(rng.choice(shape[0], rng.integers(shape[0] + 1), replace=False))
    note(f"rows/{k}", rows.astype(np.int64))
    note(f"values/{k}", values[rows])
    note(f"row_counts/{k}", np.int64(len(rows)))
    return mx.nd.sparse.row_sparse_array((values[rows], rows), shape=tuple(shape), dtype=dtype)


def _leaves(state: Any) -> Iterator[Any]:
    """The arrays of a state, in MXNet's own nesting order."""
    if isinstance(state, tuple | list):
        for member in state:
            yield from _leaves(member)
    elif state is not None:
        yield state


def _layout(case: Case, k: int, state: Any) -> Any:
    """The state with the names of its members in place of its arrays."""
    names = iter(case["state"])

    def named(part: Any) -> Any:
        if isinstance(part, tuple | list):
            return [named(member) for member in part]
        name = next(names, None)  # SGLD names nothing, and has no state.
        return None if part is None else name

    if not (case["multi_precision"] and case["dtypes"][k] == "float16"):
        return named(state)
    if RECORDINGS[case["id"].rsplit("-", 1)[0]][0].master_last:
        return [named(state[0]), "master"]
    return ["master", named(state[1])]


def _number(text: str) -> int:
    """A number that depends on a text alone."""
    return zlib.crc32(text.encode())


def main() -> None:
    """Records the files asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    watch = Watch()
    for name in arguments.names:
        if name == "schedulers":
            arrays = record_schedules(arguments.seed)
        else:
            arrays = record(name, arguments.seed, watch)
        np.savez_compressed(arguments.out / f"{name}.npz", **arrays)
        print(f"{name}: {len(json.loads(str(arrays['meta'])))} cases")


if __name__ == "__main__":
    main()
