"""Trains a small transformer on docstrings with five algorithms, each with the best of four rates.

    python examples/transformer.py          # about ten minutes on a laptop
    python examples/transformer.py --quick  # half a minute

The model reads bytes of the docstrings of the Python packages on this machine and predicts the next
byte. For each algorithm four networks with four learning rates train at once by `jax.vmap`; the
rate with the lowest held-out loss then trains once more, alone, for the time. Rates rise over the
first tenth of the steps and fall along a cosine, but for Schedule-Free, whose rate only rises. The
picture shows held-out loss against steps and against seconds.

What it does not show: which algorithm is best. The model is small, the text short, one seed, four
rates, no sweep of decays and momenta. At this size Newton-Schulz and eigenbases take a large part
of a step, which they do not in large models, and the order of the curves changes with the model,
the batch and the number of steps.
"""

import argparse
import itertools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from docstring_corpus import PACKAGES, docstrings, sources

import jaxmxopt as mxopt
from jaxmxopt.lr_scheduler import CosineScheduler

FIGURE = pathlib.Path(__file__).parent / "figures" / "transformer.png"
LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 2, 4, 64, 48, 8
SYMBOLS, HELD_OUT = 256, 64  # Of bytes, and sequences to evaluate with.
Params = dict[str, Any]


class Text(NamedTuple):
    """Bytes to train with, and sequences that are held out."""

    bytes: jax.Array
    held_out: jax.Array


class Contender(NamedTuple):
    """An algorithm: a definition of a rate and a number of steps, and rates to try.

    Attributes:
        make: the definition. The rate may be traced.
        rates: to try; for Muon and SOAP those of the weights between layers alone.
        shown: what to evaluate with, of weights and state.
        color: of its curve.
    """

    make: Callable[[Any, int], Any]
    rates: tuple[float, ...]
    color: str
    shown: Callable[[Any, Any], Any] = lambda params, _: params


def decreasing(rate: Any, steps: int) -> CosineScheduler:
    """Return a schedule that rises to the rate and falls to nothing."""
    return CosineScheduler(max_update=steps, base_lr=rate, warmup_steps=max(1, steps // 10))


def adamw(rate: Any, steps: int) -> mxopt.AdamW:
    """Return AdamW as torch has it, decay for matrices alone."""
    return mxopt.AdamW(
        lr_scheduler=decreasing(rate, steps), beta2=0.99, wd=0.1, standard=True, wd_mult=NO_DECAY
    )


NO_DECAY = {"*gain": 0.0, "*embed": 0.0}
# The rate of embeddings, head and norms, where those of the matrices are tried.
OUTER_RATE = 3e-3
CONTENDERS = {
    "AdamW": Contender(adamw, (1e-3, 3e-3, 1e-2, 3e-2), "#0072b2"),
    "Lion": Contender(
        lambda rate, steps: mxopt.Lion(
            lr_scheduler=decreasing(rate, steps), beta2=0.98, wd=0.3, wd_mult=NO_DECAY
        ),
        (3e-4, 1e-3, 3e-3, 1e-2),
        "#e69f00",
    ),
    "Muon": Contender(
        lambda rate, steps: mxopt.by_kind(
            mxopt.Muon(lr_scheduler=decreasing(rate, steps), wd=0.01), adamw(OUTER_RATE, steps)
        ),
        (5e-3, 1e-2, 2e-2, 5e-2),
        "#009e73",
    ),
    "SOAP": Contender(
        lambda rate, steps: mxopt.by_kind(
            mxopt.SOAP(lr_scheduler=decreasing(rate, steps), wd=0.01), adamw(OUTER_RATE, steps)
        ),
        (1e-3, 3e-3, 1e-2, 3e-2),
        "#cc79a7",
    ),
    "Schedule-Free": Contender(
        lambda rate, steps: mxopt.ScheduleFreeAdamW(
            learning_rate=rate,
            warmup_steps=max(1, steps // 10),
            beta2=0.99,
            wd=0.03,
            wd_mult=NO_DECAY,
        ),
        (3e-3, 1e-2, 2e-2, 5e-2),
        "#d55e00",
        mxopt.averaged,
    ),
}


class Curve(NamedTuple):
    """The record of the best rate: steps, held-out losses and seconds of training then."""

    rate: float
    steps: np.ndarray
    losses: np.ndarray
    seconds: np.ndarray


def read(characters: int) -> Text:
    """Return so much of the text; of every twentieth docstring, sequences are held out."""
    files = sorted(itertools.chain.from_iterable(map(sources, PACKAGES)))
    kept: tuple[list[bytes], list[bytes]] = [], []
    for number, text in enumerate(
        dict.fromkeys(itertools.chain.from_iterable(map(docstrings, files)))
    ):
        kept[number % 20 == 0].append(text.encode() + b"\n\n")
        if sum(map(len, kept[0])) > characters and number % 1000 == 0:
            break
    train, rest = (np.frombuffer(b"".join(part), np.uint8) for part in kept)
    starts = np.random.default_rng(0).integers(0, len(rest) - CONTEXT - 1, HELD_OUT)
    return Text(jnp.asarray(train), jnp.asarray(rest[starts[:, None] + np.arange(CONTEXT + 1)]))


def init() -> Params:
    """Return the weights: kernels have the axes inputs, outputs."""
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(draw.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)

    sizes = dict.fromkeys(("query", "key", "value", "out"), (WIDTH, WIDTH))
    sizes |= {"up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    layers = [
        {name: normal(*shape) for name, shape in sizes.items()}
        | {name: {"gain": jnp.ones(WIDTH)} for name in ("norm1", "norm2")}
        for _ in range(LAYERS)
    ]
    embed = jnp.asarray(draw.normal(size=(SYMBOLS, WIDTH)) * 0.02, jnp.float32)
    positions = jnp.asarray(draw.normal(size=(CONTEXT, WIDTH)) * 0.02, jnp.float32)
    head = jnp.zeros((WIDTH, SYMBOLS))
    outer = {"embed": embed, "positions_embed": positions, "gain": jnp.ones(WIDTH), "head": head}
    return outer | {"layers": layers}


def normed(x: jax.Array, gain: jax.Array) -> jax.Array:
    """Root mean square norm."""
    return x * gain * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)


def loss_of(params: Params, sequences: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of the next byte, in nats."""
    inputs, targets = sequences[:, :-1], sequences[:, 1:]
    x = params["embed"][inputs] + params["positions_embed"]
    for layer in params["layers"]:
        y = normed(x, layer["norm1"]["gain"])
        heads = (y @ layer[name] for name in ("query", "key", "value"))
        split = (head.reshape(*head.shape[:2], HEADS, -1) for head in heads)
        y = jax.nn.dot_product_attention(*split, is_causal=True)
        x = x + y.reshape(x.shape) @ layer["out"]
        x = x + jax.nn.gelu(normed(x, layer["norm2"]["gain"]) @ layer["up"]) @ layer["down"]
    logits = normed(x, params["gain"]) @ params["head"]
    chances = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(chances, targets[..., None].astype(jnp.int32), axis=-1))


def training(contender: Contender, steps: int, text: Text) -> tuple[Any, Any]:
    """Return a function that begins with a rate, and one that does some steps and evaluates."""

    def begin(rate: Any) -> tuple[Any, Params, Any]:
        opt, params = contender.make(rate, steps), init()
        return opt, params, opt.init(params)

    def advance(member: Any, starts: jax.Array) -> tuple[Any, jax.Array]:
        opt, params, state = member

        def step(carry: Any, starts: jax.Array) -> tuple[Any, None]:
            params, state = carry
            sequences = text.bytes[starts[:, None] + jnp.arange(CONTEXT + 1)]
            return opt.step(params, jax.grad(loss_of)(params, sequences), state), None

        params, state = jax.lax.scan(step, (params, state), starts)[0]
        return (opt, params, state), loss_of(contender.shown(params, state), text.held_out)

    return begin, advance


def run(contender: Contender, steps: int, chunk: int, text: Text) -> Curve:
    """Tries the rates at once, then trains with the best alone."""
    begin, advance = training(contender, steps, text)
    draw = np.random.default_rng(1)
    starts = draw.integers(0, len(text.bytes) - CONTEXT - 1, (steps // chunk, chunk, BATCH))

    members = jax.vmap(begin)(np.float32(contender.rates))
    together = jax.jit(jax.vmap(advance, in_axes=(0, None)))
    losses = np.inf
    for part in starts:
        members, losses = together(members, part)
    best = contender.rates[int(np.nanargmin(np.asarray(losses)))]

    alone = jax.jit(advance).lower(begin(np.float32(best)), starts[0]).compile()
    member, found, seconds, began = begin(np.float32(best)), [], [], time.perf_counter()
    for part in starts:
        member, loss = alone(member, part)
        found.append(float(loss))
        seconds.append(time.perf_counter() - began)
    return Curve(best, chunk * np.arange(1, len(starts) + 1), np.array(found), np.array(seconds))


def draw(curves: dict[str, Curve], path: pathlib.Path) -> None:
    """Draws held-out loss against steps, and against seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    for name, curve in curves.items():
        label = f"{name}, rate {curve.rate:g}"
        for axes, against in zip(panels, (curve.steps, curve.seconds), strict=True):
            axes.plot(against, curve.losses, color=CONTENDERS[name].color, label=label, lw=1.6)
    panels[0].set(xlabel="steps", ylabel="held-out loss, nats a byte")
    panels[1].set(xlabel="seconds, evaluation included")
    seen = np.concatenate([curve.losses for curve in curves.values()])
    panels[0].set_ylim(seen.min() - 0.05, np.quantile(seen, 0.98) + 0.05)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    panels[0].set_title("A small transformer on docstrings", loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Curve]:
    """Trains with every algorithm, prints a table, draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps only")
    parser.add_argument("--figure", type=pathlib.Path)
    options = parser.parse_args(arguments)
    figure = options.figure or FIGURE.with_suffix(".quick.png" if options.quick else ".png")
    steps, chunk, characters = (10, 5, 100_000) if options.quick else (600, 20, 4_000_000)

    text = read(characters)
    weights = sum(leaf.size for leaf in jax.tree.leaves(init()))
    print(f"{len(text.bytes):,} bytes of docstrings, {weights:,} weights, {steps} steps")
    print(f"{'':14} {'rate':>6} {'held-out loss':>14} {'ms a step':>10}")
    curves = {}
    for name, contender in CONTENDERS.items():
        curve = curves[name] = run(contender, steps, chunk, text)
        milliseconds = 1000 * curve.seconds[-1] / steps
        print(f"{name:14} {curve.rate:6g} {curve.losses[-1]:14.3f} {milliseconds:10.1f}")
    won = min(curves, key=lambda name: curves[name].losses[-1])
    budget = min(curve.seconds[-1] for curve in curves.values())
    early = min(
        curves, key=lambda name: np.interp(budget, curves[name].seconds, curves[name].losses)
    )
    print(f"lowest after {steps} steps: {won}; lowest after {budget:.0f} s: {early}")
    print("One seed, one small model: this says nothing about large ones.")
    draw(curves, figure)
    print(f"picture: {figure}")
    return curves


if __name__ == "__main__":
    main()
