"""Trains a small convolutional network on handwritten digits, then compares eight optimizers.

Run `python examples/digits.py`; `--quick` trains a little only. The picture is written to
`examples/figures/digits.png`, or to where `--figure` says.
"""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt.lr_scheduler import CosineScheduler

FIGURE = pathlib.Path(__file__).parent / "figures" / "digits.png"
BATCH = 128
# Told apart with any colour vision, together with the dashes of every other line.
COLOURS = ["#0072b2", "#b87800", "#008060", "#d55e00", "#b0508c", "#2f8fc4", "#000000", "#8c6d31"]


class Data(NamedTuple):
    """Images of 8 x 8 with values in [0, 1], and their digits."""

    train_images: jax.Array
    train_labels: jax.Array
    test_images: jax.Array
    test_labels: jax.Array


def load() -> Data:
    """Return the 1,797 digits that scikit-learn ships, a fifth of them held out."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = jnp.asarray(digits.images[order, :, :, None] / 16.0, jnp.float32)
    labels = jnp.asarray(digits.target[order], jnp.int32)
    held_out = len(order) // 5
    return Data(images[held_out:], labels[held_out:], images[:held_out], labels[:held_out])


def init_params(key: jax.Array) -> dict[str, Any]:
    """He-normal kernels, zero biases."""

    def layer(key: jax.Array, *shape: int) -> dict[str, jax.Array]:
        fan_in = np.prod(shape[:-1])
        return {
            "kernel": jax.random.normal(key, shape) * np.sqrt(2 / fan_in),
            "bias": jnp.zeros(shape[-1]),
        }

    keys = jax.random.split(key, 4)
    return {
        "conv1": layer(keys[0], 3, 3, 1, 16),
        "conv2": layer(keys[1], 3, 3, 16, 32),
        "dense": layer(keys[2], 4 * 4 * 32, 64),
        "logits": layer(keys[3], 64, 10),
    }


def predict(params: dict[str, Any], images: jax.Array) -> jax.Array:
    """Return the logits of a batch of images."""

    def convolve(x: jax.Array, layer: dict[str, jax.Array]) -> jax.Array:
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", None, None, dimensions)
        return jax.nn.relu(x + layer["bias"])

    x = convolve(convolve(images, params["conv1"]), params["conv2"])
    x = x.reshape(x.shape[0], 4, 2, 4, 2, -1).max((2, 4)).reshape(x.shape[0], -1)
    x = jax.nn.relu(x @ params["dense"]["kernel"] + params["dense"]["bias"])
    return x @ params["logits"]["kernel"] + params["logits"]["bias"]


def loss_of(params: dict[str, Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    log_probabilities = jax.nn.log_softmax(predict(params, images))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], 1))


@jax.jit
def accuracy(params: dict[str, Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the share of images whose digit is the most likely one."""
    return jnp.mean((jnp.argmax(predict(params, images), 1) == labels).astype(jnp.float32))


def train_step_of(opt: mxopt.OptimizerDef) -> Callable[..., Any]:
    """One jitted training step: gradients and update in a single program."""

    def train_step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, images, labels)
        params, state = opt.step(params, grads, state)
        return params, state, loss

    return jax.jit(train_step, donate_argnums=(0, 1))


def train(
    opt: mxopt.OptimizerDef, data: Data, epochs: int, seed: int = 0, name: str = ""
) -> tuple[list[float], list[float]]:
    """Trains and returns the training loss and the held-out accuracy after each epoch."""
    params = init_params(jax.random.key(seed))
    state, step = opt.init(params), train_step_of(opt)
    generator = np.random.default_rng(seed)
    losses, accuracies = [], []
    steps = len(data.train_labels) // BATCH
    with tqdm.tqdm(total=epochs * steps, desc=name, unit=" steps", ncols=90) as bar:
        for _ in range(epochs):
            order = generator.permutation(len(data.train_labels))[: steps * BATCH]
            total = 0.0
            for batch in order.reshape(steps, BATCH):
                images, labels = data.train_images[batch], data.train_labels[batch]
                params, state, loss = step(params, state, images, labels)
                total += float(loss)
                bar.update()
            losses.append(total / steps)
            accuracies.append(float(accuracy(params, data.test_images, data.test_labels)))
            bar.set_postfix_str(f"loss {losses[-1]:.3f}, held out {accuracies[-1]:.1%}")
    return losses, accuracies


def cosine(base_lr: float, epochs: int) -> CosineScheduler:
    """Two epochs of warmup, then a cosine to nearly nothing."""
    steps = epochs * (1437 // BATCH)
    warmup = min(2 * (1437 // BATCH), steps - 1)
    return CosineScheduler(steps, base_lr=base_lr, final_lr=base_lr / 100, warmup_steps=warmup)


def contenders(epochs: int) -> dict[str, mxopt.OptimizerDef]:
    """Eight algorithms, each with a learning rate that suits it."""
    return {
        "SGD": mxopt.SGD(momentum=0.9, lr_scheduler=cosine(0.1, epochs)),
        "NAG": mxopt.NAG(momentum=0.9, lr_scheduler=cosine(0.1, epochs)),
        "Signum": mxopt.Signum(lr_scheduler=cosine(0.002, epochs)),
        "Adam": mxopt.Adam(lr_scheduler=cosine(0.01, epochs)),
        "AdaBelief": mxopt.AdaBelief(lr_scheduler=cosine(0.01, epochs)),
        "LAMB": mxopt.LAMB(lr_scheduler=cosine(0.02, epochs)),
        "RMSProp": mxopt.RMSProp(lr_scheduler=cosine(0.01, epochs)),
        "AdaGrad": mxopt.AdaGrad(lr_scheduler=cosine(0.03, epochs)),
    }


def draw(curves: dict[str, tuple[list[float], list[float]]], path: pathlib.Path) -> None:
    """Draws loss and held-out error over epochs, named at the curves' ends."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    panels = (
        (left, "training loss", [losses for losses, _ in curves.values()]),
        (
            right,
            "held-out error, %",
            [[100 * (1 - a) for a in each] for _, each in curves.values()],
        ),
    )
    for axes, title, lines in panels:
        axes.set_title(title, loc="left")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.set_xlabel("epoch")
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        for number, line in enumerate(lines):
            style = {"color": COLOURS[number], "lw": 1.8, "ls": ("-", "--")[number % 2]}
            axes.plot(range(1, len(line) + 1), line, **style)
        name_ends(axes, list(curves), lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)


def name_ends(axes: Any, names: list[str], lines: list[list[float]]) -> None:
    """Names every curve at its end, moved up or down so that no two names meet."""
    low, high = np.log(axes.get_ylim())
    heights = [(np.log(max(line[-1], 1e-9)) - low) / (high - low) for line in lines]
    order = np.argsort(heights, kind="stable")
    places = np.array(heights)[order]
    for _ in range(200):
        gaps = np.diff(places)
        short = np.maximum(0.055 - gaps, 0) / 2
        places[:-1] -= short
        places[1:] += short
    end = len(lines[0])
    for number, place in zip(order, places, strict=True):
        axes.annotate(
            names[number],
            (end, lines[number][-1]),
            (1.05, place),
            textcoords="axes fraction",
            color=COLOURS[number],
            va="center",
            arrowprops={"arrowstyle": "-", "color": COLOURS[number], "lw": 0.6, "shrinkB": 2},
        )


def main(arguments: list[str] | None = None) -> float:
    """Trains, compares, draws; returns the held-out accuracy of the first training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", "--short", action="store_true", help="a few epochs only")
    parser.add_argument("--figure", type=pathlib.Path)
    options = parser.parse_args(arguments)
    figure = options.figure or FIGURE.with_suffix(".quick.png" if options.quick else ".png")
    epochs, compared = (2, 1) if options.quick else (20, 12)
    data = load()
    opt = mxopt.Adam(lr_scheduler=cosine(0.003, epochs), wd=1e-4, wd_mult={"*/bias": 0.0})
    _, accuracies = train(opt, data, epochs, name="Adam, main job")
    print(f"held-out accuracy: {accuracies[-1]:.2%}")
    curves = {
        name: train(other, data, compared, name=f"{name:>9}")
        for name, other in contenders(compared).items()
    }
    draw(curves, figure)
    print(f"learning curves: {figure}")
    return accuracies[-1]


if __name__ == "__main__":
    main()
