"""Train in float16 on handwritten digits, through overflows, and draw the loss scale over time.

Weights, activations and gradients are float16; the optimizer keeps float32 masters. Some batches
are damaged on purpose, so that their gradients overflow: the step is skipped and the scale halved.

    python examples/mixed_precision.py          # half a minute on a laptop
    python examples/mixed_precision.py --quick  # a few seconds
"""

import argparse
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from sklearn.datasets import load_digits

import jaxmxopt as mxopt
from jaxmxopt.amp import DynamicLossScaler, LossScale, all_finite

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCH, WIDTH = 128, 128


class Digits(NamedTuple):
    """Handwritten digits of 8 by 8 pixels, in parts for training and testing."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class History(NamedTuple):
    """The record of every step."""

    loss: np.ndarray
    scale: np.ndarray
    finite: np.ndarray


def digits() -> Digits:
    """Load and splits the digits."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (images[order] / 16).astype(np.float32), labels[order]
    return Digits(images[:1400], labels[:1400], images[1400:], labels[1400:])


def initial_weights(dtype: Any) -> list[dict[str, jax.Array]]:
    """Three layers, scaled after He."""
    draw = np.random.default_rng(1)
    sizes = (64, WIDTH, WIDTH, 10)
    return [
        {
            "kernel": jnp.asarray(draw.normal(0, np.sqrt(2 / rows), (rows, columns)), dtype),
            "bias": jnp.zeros(columns, dtype),
        }
        for rows, columns in itertools.pairwise(sizes)
    ]


def logits(params: list[dict[str, jax.Array]], images: jax.Array) -> jax.Array:
    """Return the network, in the precision of its weights; its outputs in float32."""
    x = images.astype(params[0]["kernel"].dtype)
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return (x @ params[-1]["kernel"] + params[-1]["bias"]).astype(jnp.float32)


def loss_of(params: list[dict[str, jax.Array]], images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross entropy, in float32."""
    chances = jax.nn.log_softmax(logits(params, images))
    return -jnp.mean(jnp.take_along_axis(chances, labels[:, None], axis=1))


def train(data: Digits, dtype: Any, steps: int, damaged: Sequence[int] = ()) -> tuple[Any, History]:
    """Trains with a loss scale; a step whose gradients are not finite changes no weight."""
    # A window shorter than MXNet's 2000 steps, as the training is short too.
    scaler = DynamicLossScaler(scale_window=100)
    opt = mxopt.Adam(learning_rate=1e-3, multi_precision=True)

    @jax.jit
    def step(params: Any, state: mxopt.State, scale: LossScale, x: Any, y: Any) -> Any:
        def scaled(params: Any) -> tuple[jax.Array, jax.Array]:
            loss = loss_of(params, x, y)
            return scaler.scale(loss, scale), loss

        grads, loss = jax.grad(scaled, has_aux=True)(params)
        grads = scaler.unscale(grads, scale)
        finite = all_finite(grads)
        params, state = opt.step(params, grads, state, where=finite)
        return params, state, scaler.update(scale, finite), (loss, scale.loss_scale, finite)

    params = initial_weights(dtype)
    state, scale = opt.init(params), scaler.init()
    draw = np.random.default_rng(2)
    seen: list[Any] = []
    for number in range(steps):
        chosen = draw.integers(0, len(data.train_y), BATCH)
        images = data.train_x[chosen] * (1e6 if number in damaged else 1)
        params, state, scale, now = step(params, state, scale, images, data.train_y[chosen])
        seen.append(now)
    return params, History(*(np.asarray(column) for column in zip(*seen, strict=True)))


def accuracy(params: Any, data: Digits) -> float:
    """Return the share of test digits that are read rightly."""
    return float(jnp.mean(jnp.argmax(logits(params, data.test_x), axis=1) == data.test_y))


def draw(history: History, plain: History, path: pathlib.Path) -> None:
    """Draws both losses, and the scale below."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 5.5), sharex=True, layout="constrained", height_ratios=(1, 1)
    )
    steps = np.arange(len(history.loss))
    for name, run, colour, width in (("float32", plain, "0.75", 4), ("float16", history, "C0", 1)):
        kept = np.where(run.finite, run.loss, np.nan)
        top.semilogy(steps, kept, label=name, color=colour, linewidth=width)
    top.set(ylabel="training loss", title="Handwritten digits in float16 with a dynamic loss scale")
    top.legend(frameon=False)
    bottom.step(steps, history.scale, where="post", color="C0")
    skipped = ~history.finite
    bottom.plot(steps[skipped], history.scale[skipped], "x", color="C3", label="overflow, skipped")
    bottom.set_yscale("log", base=2)
    bottom.set(xlabel="step", ylabel="loss scale", xlim=(0, len(steps)))
    bottom.legend(frameon=False, loc="lower right")
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def main(arguments: list[str] | None = None) -> None:
    """Trains in both precisions, and says how each did."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = pathlib.Path(__file__).parent / "figures" / "mixed_precision.png"
    parser.add_argument("--figure", type=pathlib.Path, help="where to draw")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    options = parser.parse_args(arguments)
    figure = options.figure or default.with_suffix(".quick.png" if options.quick else ".png")
    steps, damaged = (150, (35, 36, 102)) if options.quick else (1500, (350, 351, 1020))
    data = digits()
    params, history = train(data, jnp.float16, steps, damaged)
    plain_params, plain = train(data, jnp.float32, steps)
    print(f"float32: {accuracy(plain_params, data):.1%} of the test digits")
    print(f"float16: {accuracy(params, data):.1%} of the test digits")
    skipped = np.flatnonzero(~history.finite)
    print(f"skipped: {', '.join(map(str, skipped))} of {steps} steps, damaged were {damaged}")
    draw(history, plain, figure)
    print(f"drawn: {figure}")


if __name__ == "__main__":
    main()
