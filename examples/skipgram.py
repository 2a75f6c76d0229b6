"""Learns word vectors from docstrings, and shows what lazy rows save.

Skip-gram with negative sampling: two tables, of which a batch looks up a few rows. Trains with
row-sparse gradients and lazy Adam, prints nearest neighbours, then trains for as many seconds with
the dense gradients of the same batches. `python examples/skipgram.py`; `--quick` trains a little
only. The picture is written to `examples/figures/skipgram.png`, or to where `--figure` says.
"""

import argparse
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from docstring_corpus import PACKAGES, Corpus, read

import jaxmxopt as mxopt
from jaxmxopt.lr_scheduler import PolyScheduler

FIGURE = pathlib.Path(__file__).parent / "figures" / "skipgram.png"
PROBES = ("float32", "axis", "gradient", "list", "matrix", "file", "mean", "sin", "red", "max")
BATCH, CHUNK = 512, 100  # Pairs of a step, and steps of one call.
WINDOW = 5
NEGATIVES, SHARED = 5, 64  # Noise words of a pair, and how many a batch draws in their stead.
COMMON = 6_000  # Only so many words are shown as neighbours: the others are seen a few times.
LAZY, DENSE = "#0072b2", "#d55e00"
Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]


class Pairs(NamedTuple):
    """Centers, one context of each, and of how many words of text they come."""

    centers: Integers
    contexts: Integers
    words: int


class Task(NamedTuple):
    """The arguments of both trainings."""

    vocabulary: int
    noise: np.ndarray[Any, np.dtype[np.float64]]
    epochs: list[Pairs]
    held_out: Pairs

    @property
    def words(self) -> int:
        """Of the text, as often as it is read."""
        return sum(pairs.words for pairs in self.epochs)

    @property
    def steps(self) -> int:
        """In whole calls."""
        return sum(len(pairs.centers) // (BATCH * CHUNK) * CHUNK for pairs in self.epochs)


class Curve(NamedTuple):
    """The record of a training: words read, seconds of training and the held-out loss then."""

    words: list[float]
    seconds: list[float]
    losses: list[float]

    @property
    def speed(self) -> float:
        """Words a second."""
        return self.words[-1] / self.seconds[-1]


def pairs_of(corpus: Corpus, chosen: Any, generator: np.random.Generator) -> Pairs:
    """Thins out frequent words, then pairs each word with those in a window of random width."""
    words, documents = corpus.words[chosen], corpus.documents[chosen]
    frequency = corpus.counts / corpus.counts.sum()
    kept = generator.random(len(words)) < np.sqrt(1e-4 / frequency)[words]
    thin, documents = words[kept], documents[kept]
    width = generator.integers(1, WINDOW + 1, len(thin))
    centers, contexts = [], []
    for distance in range(1, WINDOW + 1):
        left, right = slice(None, -distance), slice(distance, None)
        together = documents[left] == documents[right]
        for center, context in ((left, right), (right, left)):
            near = together & (width[center] >= distance)
            centers.append(thin[center][near])
            contexts.append(thin[context][near])
    order = generator.permutation(sum(map(len, centers)))
    return Pairs(np.concatenate(centers)[order], np.concatenate(contexts)[order], len(words))


def task_of(corpus: Corpus, epochs: int) -> Task:
    """Hold out every fiftieth docstring and make pairs of the others, anew for each epoch."""
    noise = corpus.counts**0.75
    held_out = corpus.documents % 50 == 0
    generator = np.random.default_rng(0)
    rounds = [pairs_of(corpus, ~held_out, generator) for _ in range(epochs)]
    test = pairs_of(corpus, held_out, generator)
    return Task(len(corpus.vocabulary), noise / noise.sum(), rounds, test)


def init_params(vocabulary: int, width: int) -> dict[str, jax.Array]:
    """Small random vectors of centers, zeros for contexts."""
    uniform = jax.random.uniform(jax.random.key(0), (vocabulary, width), minval=-0.5, maxval=0.5)
    return {"centers": uniform / width, "contexts": jnp.zeros((vocabulary, width))}


def loss_of(params: Any, centers: jax.Array, contexts: jax.Array, noise: jax.Array) -> jax.Array:
    """Return the loss of a batch, all of whose pairs share their noise words."""
    center = params["centers"][centers]
    true = jnp.sum(center * params["contexts"][contexts], axis=1)
    false = center @ params["contexts"][noise].T
    weight = NEGATIVES / noise.shape[0]
    return jnp.sum(jax.nn.softplus(-true)) + weight * jnp.sum(jax.nn.softplus(false))


def train_steps_of(opt: mxopt.OptimizerDef, task: Task, lazy: bool) -> Callable[..., Any]:
    """Many training steps as one program, which changes the tables where they are."""
    table = jnp.asarray(np.cumsum(task.noise), jnp.float32)
    if lazy:
        value_and_grad = mxopt.value_and_row_grad(loss_of, ("centers", "contexts"))
    else:
        value_and_grad = jax.value_and_grad(loss_of)

    def step(carry: Any, pairs: Any) -> tuple[Any, jax.Array]:
        params, state, key = carry
        key, own = jax.random.split(key)
        noise = jnp.searchsorted(table, jax.random.uniform(own, (SHARED,)))
        loss, grads = value_and_grad(params, *pairs, noise)
        params, state = opt.step(params, grads, state)
        return (params, state, key), loss / BATCH

    def steps(carry: Any, *pairs: jax.Array) -> tuple[Any, jax.Array]:
        carry, losses = jax.lax.scan(step, carry, pairs)
        return carry, jnp.mean(losses)

    return jax.jit(steps, donate_argnums=0)


def train(
    task: Task, rate: float, width: int, *, lazy: bool, limit: float = float("inf")
) -> tuple[dict[str, jax.Array], Curve]:
    """Trains until the text or the seconds are used up; compiling and testing are not timed."""
    decay = PolyScheduler(max(task.steps, 2), base_lr=rate, final_lr=rate / 20, pwr=1)
    opt = mxopt.Adam(lr_scheduler=decay, lazy_update=lazy)
    params = init_params(task.vocabulary, width)
    carry = params, opt.init(params), jax.random.key(1)
    pairs = jax.ShapeDtypeStruct((CHUNK, BATCH), jnp.int32)
    steps = train_steps_of(opt, task, lazy).lower(carry, pairs, pairs).compile()
    held_out_loss = held_out_loss_of(task)
    seconds, words, curve = 0.0, 0.0, Curve([0.0], [0.0], [held_out_loss(params)])
    bar = tqdm.tqdm(
        total=task.words,
        desc="lazy rows" if lazy else "dense",
        unit=" words",
        unit_scale=True,
        ncols=90,
        mininterval=0.5,
    )
    for epoch in task.epochs:
        calls = len(epoch.centers) // (BATCH * CHUNK)
        shape = (calls, CHUNK, BATCH)
        each = (array[: np.prod(shape)].reshape(shape) for array in epoch[:2])
        for centers, contexts in zip(*each, strict=True):
            start = time.perf_counter()
            carry, loss = jax.block_until_ready(steps(carry, centers, contexts))
            seconds += time.perf_counter() - start
            words += epoch.words / calls
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(epoch.words / calls)
            if seconds > curve.seconds[-1] + 1 or seconds >= limit:
                note(curve, words, seconds, held_out_loss(carry[0]))
            if seconds >= limit:
                break
        if seconds >= limit:
            break
    bar.close()
    if curve.seconds[-1] < seconds:
        note(curve, words, seconds, held_out_loss(carry[0]))
    return carry[0], curve


def note(curve: Curve, *values: float) -> None:
    """Add a point to a curve."""
    for line, value in zip(curve, values, strict=True):
        line.append(value)


def held_out_loss_of(task: Task) -> Callable[[Any], float]:
    """Return the mean loss of at most 20,000 pairs that are not trained on."""
    centers, contexts = task.held_out.centers[:20_000], task.held_out.contexts[:20_000]
    noise = np.random.default_rng(2).choice(task.vocabulary, 256, p=task.noise)
    loss = jax.jit(lambda params: loss_of(params, centers, contexts, noise) / len(centers))
    return lambda params: float(loss(params))


def neighbours(vectors: jax.Array, vocabulary: Sequence[str], word: str) -> list[str]:
    """Return the six common words whose vectors point most nearly where that of a word points."""
    vectors = vectors[:COMMON]
    directions = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    order = jnp.argsort(-(directions @ directions[vocabulary.index(word)]))
    return [vocabulary[place] for place in order[:7].tolist() if vocabulary[place] != word][:6]


def draw(curves: dict[str, Curve], path: pathlib.Path) -> None:
    """Draws the held-out loss over the words read and over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10, 4.2), sharey=True, layout="constrained"
    )
    for name, curve in curves.items():
        style = {"color": LAZY if name == "lazy rows" else DENSE, "lw": 1.8}
        label = f"{name}: {curve.speed:,.0f} words/s"
        left.plot(np.array(curve.words) / 1e6, curve.losses, label=name, **style)
        right.plot(curve.seconds, curve.losses, label=label, **style)
    for axes, title, unit in (
        (left, "held-out loss by words read", "million words"),
        (right, "held-out loss by time", "seconds of training"),
    ):
        axes.set_title(title, loc="left")
        axes.set_xlabel(unit)
        axes.set_xlim(left=0)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, Curve]:
    """Read, trains, prints neighbours, compares and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="NumPy's docstrings only, once")
    parser.add_argument("--vocabulary", type=int, default=25_000, help="words, at most")
    parser.add_argument("--width", type=int, default=64, help="of a word's vector")
    parser.add_argument("--epochs", type=int, default=2, help="how often the text is read")
    parser.add_argument("--rate", type=float, default=0.003, help="learning rate at the start")
    parser.add_argument("--figure", type=pathlib.Path, help="where to draw")
    options = parser.parse_args(arguments)
    figure = options.figure or FIGURE.with_suffix(".quick.png" if options.quick else ".png")
    corpus = read(("numpy",) if options.quick else PACKAGES, options.vocabulary)
    print(
        f"{corpus.characters / 1e6:.1f} million characters, {len(corpus.words):,} words of "
        f"{len(corpus.vocabulary):,}"
    )
    task = task_of(corpus, 1 if options.quick else options.epochs)
    params, lazy = train(task, options.rate, options.width, lazy=True)
    for word in PROBES:
        if word in corpus.vocabulary[:COMMON]:
            near = neighbours(params["centers"], corpus.vocabulary, word)
            print(f"{word:>10}: {', '.join(near)}")
    _, dense = train(task, options.rate, options.width, lazy=False, limit=lazy.seconds[-1])
    curves = {"lazy rows": lazy, "dense": dense}
    for name, curve in curves.items():
        print(f"{name:>10}: {curve.speed:,.0f} words/s, held-out loss {curve.losses[-1]:.3f}")
    same = np.interp(dense.words[-1], lazy.words, lazy.losses)
    print(f"lazy rows after the words that dense has read: {same:.3f}")
    draw(curves, figure)
    print(f"curves: {figure}")
    return curves


if __name__ == "__main__":
    main()
