"""The measurements: each function gives rows of a case, its milliseconds and its ratios."""

import functools
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmxopt as mxopt
from benchmarks import around, contenders
from benchmarks.mxnet_process import MXNetProcess
from benchmarks.timing import batches, interleaved, seconds
from benchmarks.trees import SMALL_NET, TREES

Row = dict[str, Any]
Tick = Callable[[], None]


def _row(case: str, medians: dict[str, float], **more: Any) -> Row:
    """Return a case: the medians, and the ratio of ours to each other."""
    mine = medians["jaxmxopt"]
    ratios = {name: mine / taken for name, taken in medians.items() if name != "jaxmxopt"}
    return {"case": case, "milliseconds": medians, "ratios": ratios, **more}


@contextmanager
def _mxnet(python: pathlib.Path | None, **case: Any) -> Iterator[dict[str, Callable[[], float]]]:
    """MXNet as one more contender, where its environment is there."""
    if python is None:
        yield {}
        return
    process = MXNetProcess(python, case)
    try:
        yield {"mxnet": process}
    finally:
        process.close()


def steps(tree: str, algorithm: str, rounds: int, mxnet: pathlib.Path | None, tick: Tick) -> Row:
    """Measure a whole-tree step against optax, torch, MXNet and the limit of the memory."""
    shapes = TREES[tree]()
    weights, grads = contenders.arrays_of(shapes, 0), contenders.arrays_of(shapes, 1)
    runs = {
        "jaxmxopt": contenders.ours(algorithm, weights, grads),
        "optax": contenders.optax_step(algorithm, weights, grads),
        "limit": contenders.memory_limit(algorithm, weights),
    }
    fused = contenders.torch_fused(algorithm, weights, grads) if _has_torch() else None
    if fused is not None:
        runs["torch fused"] = fused
    timed = {name: functools.partial(seconds, run) for name, run in runs.items()}
    known = mxnet if algorithm != "adamw" else None
    with _mxnet(known, kind="tree", algorithm=algorithm, shapes=shapes) as other:
        return _row(f"{algorithm} {tree}", interleaved(timed | other, rounds, tick))


def steps_in_jit(tree: str, algorithm: str, rounds: int, tick: Tick) -> Row:
    """Measure the same inside a caller's own jit, with other work around it."""
    shapes = TREES[tree]()
    weights, grads = contenders.arrays_of(shapes, 0), contenders.arrays_of(shapes, 1)
    runs = {
        "jaxmxopt": contenders.ours_in_jit(algorithm, weights, grads),
        "optax": contenders.optax_in_jit(algorithm, weights, grads),
    }
    timed = {name: functools.partial(seconds, run) for name, run in runs.items()}
    return _row(f"{algorithm} {tree} in a caller's jit", interleaved(timed, rounds, tick))


def steps_around(tree: str, name: str, rounds: int, tick: Tick) -> Row:
    """Measure a step with what stands around an algorithm, in a caller's jit."""
    shapes = TREES[tree]()
    weights, grads = (contenders.arrays_of(shapes, seed) for seed in (0, 1))
    with warnings.catch_warnings():
        # Of slots in half precision.
        warnings.simplefilter("ignore", UserWarning)
        runs = around.runs(around.CASES[name](), weights, grads)
    timed = {name: functools.partial(seconds, run) for name, run in runs.items()}
    return _row(f"{name}: {tree}", interleaved(timed, rounds, tick), around=True)


def small_net(algorithm: str, rounds: int, mxnet: pathlib.Path | None, tick: Tick) -> Row:
    """Measure a whole-tree step of six small weights, against optax, torch and MXNet."""
    calls = 100
    weights, grads = (contenders.arrays_of(SMALL_NET, seed) for seed in (0, 1))
    runs = {
        "jaxmxopt": contenders.ours(algorithm, weights, grads),
        "optax": contenders.optax_step(algorithm, weights, grads),
    }
    fused = contenders.torch_fused(algorithm, weights, grads) if _has_torch() else None
    if fused is not None:
        runs["torch fused"] = fused
    timed = {name: batches(run, calls) for name, run in runs.items()}
    known = mxnet if algorithm != "adamw" else None
    with _mxnet(known, kind="tree", algorithm=algorithm, shapes=SMALL_NET) as other:
        return _row(f"{algorithm} on a net of 6 weights", interleaved(timed | other, rounds, tick))


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def compiling(tree: str, rounds: int, tick: Tick) -> Row:
    """Tracing, lowering and compiling one Adam step, in processor seconds, caches off."""
    params = [jnp.zeros(shape) for shape in TREES[tree]()]
    opt, tx = contenders.OURS["adam"](), contenders.OPTAX["adam"]()
    functions = {
        "jaxmxopt": (lambda p, s, g: opt.step(p, g, s), opt.init(params)),
        "optax": (lambda p, s, g: contenders.optax_update(tx, p, g, s), tx.init(params)),
    }
    samples: dict[str, list[Row]] = {name: [] for name in functions}

    def made_ready(name: str) -> float:
        function, state = functions[name]
        samples[name].append(_made_ready(function, params, state))
        return samples[name][-1]["all"]

    runs = {name: functools.partial(made_ready, name) for name in functions}
    medians = interleaved(runs, rounds, tick)
    parts = {
        name: {part: float(np.median([one[part] for one in found[1:]])) for part in found[0]}
        for name, found in samples.items()
    }
    return _row(f"compiling adam {tree}", medians, parts=parts)


def _made_ready(function: Callable[..., Any], params: Any, state: Any) -> Row:
    jax.clear_caches()
    marks = [time.process_time()]
    traced = jax.jit(function, donate_argnums=(0, 1)).trace(params, state, params)
    marks.append(time.process_time())
    lowered = traced.lower()
    marks.append(time.process_time())
    compiled = lowered.compile()
    marks.append(time.process_time())
    memory = compiled.memory_analysis()
    return {
        "trace": marks[1] - marks[0],
        "lower": marks[2] - marks[1],
        "compile": marks[3] - marks[2],
        "all": marks[3] - marks[0],
        "temporary share": memory.temp_size_in_bytes / memory.argument_size_in_bytes,
        "kernels": _kernels(compiled.as_text()),
    }


def _kernels(program: str) -> int:
    """Return how many kernels a run of a compiled program launches, loops counted once."""
    bodies = dict(
        re.findall(r"^(?:ENTRY )?%(\S+) \(.*?\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
    )
    entry = re.search(r"^ENTRY %(\S+) ", program, re.MULTILINE)

    def launched(name: str) -> int:
        kinds = re.findall(r" = .*? (fusion|copy|reduce|custom-call|call)\(.*", bodies[name])
        called = re.findall(r" call\(.*to_apply=%([\w.-]+)", bodies[name])
        return len(kinds) - len(called) + sum(map(launched, called))

    return launched(entry.group(1)) if entry else 0


CACHED = """
import sys, jax, jax.monitoring
compiled = []
jax.monitoring.register_event_listener(
    lambda event, **_: compiled.append(event) if event.endswith("cache_misses") else None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
import jax.numpy as jnp, jaxmxopt as mxopt
opt, params = mxopt.Adam(), [jnp.zeros((64, 64)), *[jnp.zeros(64)] * 200]
jax.block_until_ready(opt.step(params, params, opt.init(params)))
print(len(compiled))
"""


PEAK = """
import json, pathlib, sys, jax, jax.numpy as jnp, jaxmxopt as mxopt
def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
opt, params = mxopt.Adam(), [
    jnp.full(shape, 0.5, jnp.float32) for shape in json.loads(sys.argv[1])
]
grads, state = [p * 2 for p in params], opt.init(params)
params, state = jax.block_until_ready(opt.step(params, grads, state, donate=True))
held = sum(leaf.nbytes for leaf in jax.tree.leaves((params, grads, state)))
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
for _ in range(3):
    params, state = jax.block_until_ready(opt.step(params, grads, state, donate=True))
print((status("VmHWM") - before) / held)
"""


def peak_memory(tree: str) -> Row:
    """Return the most that a donated step needs beside what the process holds, as a share."""
    command = [sys.executable, "-c", PEAK, json.dumps(TREES[tree]())]
    share = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {"case": f"process memory adam {tree}", "beside params, grads and state": share}


def second_process(folder: pathlib.Path) -> Row:
    """Measure how many programs a second process compiles with JAX's persistent cache."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder)}
    misses = [
        int(
            subprocess.run(
                [sys.executable, "-c", CACHED],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(2)
    ]
    return {"case": "programs compiled by a second process", "first, second": misses}


def single_weight(rounds: int, mxnet: pathlib.Path | None, tick: Tick) -> list[Row]:
    """One Adam update of a vector of 64: the bare jitted call against ours and MXNet's.

    The bare call has the same arrays and does the same arithmetic. A definition's state holds the
    count, of which it makes the bias corrections, and its program has no decay; that of the
    stateful layer gets the corrected rate from the host, and must take any decay.
    """
    calls = 200
    w, g = jnp.ones(64), jnp.full(64, 0.1)
    opt = mxopt.Adam()
    state = opt.create_state(0, w)
    t = state.num_update
    bare_numbers = np.full(6, 0.5, np.float32)

    def adam(h: Any, w: Any, g: Any, m: Any, v: Any) -> Any:
        m, v = h[0] * m + h[1] * g, h[2] * v + h[3] * g * g
        return w - h[4] * m / (jnp.sqrt(v) + h[5]), m, v

    @jax.jit
    def counted(h: Any, w: Any, g: Any, t: Any, m: Any, v: Any) -> Any:
        t = t + 1
        one_minus1, one_minus2 = (-jnp.expm1(t * jnp.log(beta)) for beta in (h[0], h[2]))
        h = h.at[4].multiply(jnp.sqrt(one_minus2) / one_minus1)
        w, m, v = adam(h, w, h[5] * g, m, v)
        return w, t, m, v

    @jax.jit
    def decayed(h: Any, w: Any, g: Any, m: Any, v: Any) -> Any:
        return adam(h, w, h[5] * g + h[4] * w, m, v)

    stateful = mxopt.create("adam")
    slots = stateful.create_state(0, w)
    updater = mxopt.get_updater(mxopt.create("adam"))
    runs = {
        "counted": lambda: counted(bare_numbers, w, g, t, *state.slots)[0].block_until_ready(),
        "decayed": lambda: decayed(bare_numbers, w, g, *slots)[0].block_until_ready(),
        "definition.update": lambda: opt.update(0, w, g, state)[0].block_until_ready(),
        "Optimizer.update": lambda: stateful.update(0, w, g, slots)[0].block_until_ready(),
        "Updater": lambda: updater(0, g, w).block_until_ready(),
    }
    timed = {name: batches(run, calls) for name, run in runs.items()}
    with _mxnet(mxnet, kind="single", algorithm="adam", calls=calls) as other:
        scaled = {name: (lambda run=run: run() / calls) for name, run in other.items()}
        medians = interleaved(timed | scaled, rounds, tick)
    bases = {"definition.update": "counted", "Optimizer.update": "decayed", "Updater": "decayed"}
    rows: list[Row] = []
    for name, base in bases.items():
        found = {"jaxmxopt": medians[name], "bare": medians[base]}
        if "mxnet" in medians:
            found["mxnet"] = medians["mxnet"]
        rows.append(_row(f"one weight: {name}", found))
    return rows


def trainer(rounds: int, mxnet: pathlib.Path | None, tick: Tick) -> Row:
    """`Trainer.step` on ResNet-50's tree: until it returns, and until it is done.

    Beside the first stands what a jitted function of as many arrays takes that returns them as they
    are.
    """
    shapes = TREES["resnet50"]()
    grads = [jnp.asarray(g) for g in contenders.arrays_of(shapes, 1)]
    owner = mxopt.Trainer([jnp.asarray(w) for w in contenders.arrays_of(shapes, 0)], "adam")
    # Weights and the two slots of each.
    held: list[Any] = [jnp.zeros(shape) for shape in shapes for _ in range(3)]
    same = jax.jit(lambda held, grads: held, donate_argnums=0, keep_unused=True)
    host: dict[str, list[float]] = {"jaxmxopt": [], "bare": []}

    def until_it_returns(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        arrays = call()
        host[name].append(time.perf_counter() - start)
        return jax.block_until_ready(arrays)

    def run() -> None:
        until_it_returns("jaxmxopt", lambda: owner.step(grads, 1))

    def run_bare() -> None:
        held[:] = until_it_returns("bare", lambda: same(held, grads))

    timed = {
        "jaxmxopt": functools.partial(seconds, run),
        "bare": functools.partial(seconds, run_bare),
    }
    with _mxnet(mxnet, kind="trainer", shapes=shapes) as other:
        medians = dict(interleaved(timed | other, rounds, tick))
    medians.pop("bare")
    taken = {name: 1e3 * float(np.median(times[1:])) for name, times in host.items()}
    return _row("Trainer.step resnet50", medians) | {"host milliseconds": taken}
