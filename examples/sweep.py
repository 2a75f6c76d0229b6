"""Trains 64 networks at once, each with its own learning rate and weight decay.

    python examples/sweep.py          # about a minute on a laptop
    python examples/sweep.py --quick  # a few seconds

A definition is a pytree, so 64 of them stack into one, and `jax.vmap` trains a network with each in
one program. First on a grid, drawn as a heat map; then as a population (Jaderberg et al., 2017),
arXiv:1711.09846: after every round the worst quarter takes over weights, states and hyperparameters
from the best quarter, and tries others near them.
"""

import argparse
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jaxmxopt as mxopt

FIGURE = pathlib.Path(__file__).parent / "figures" / "sweep.png"
SIDE = 8
MEMBERS = SIDE * SIDE
BATCH = 128
RATES = np.geomspace(1e-3, 3.0, SIDE)
DECAYS = np.geomspace(1e-5, 0.3, SIDE)


class Part(NamedTuple):
    """Images as 64 numbers in [0, 1], and their digits."""

    images: jax.Array
    labels: jax.Array


class Member(NamedTuple):
    """A network and its optimizer; of all networks, with a leading axis in every leaf."""

    opt: mxopt.OptimizerDef
    params: dict[str, jax.Array]
    state: mxopt.State


def load() -> tuple[Part, Part, Part]:
    """Return the 1,797 digits of scikit-learn: to train, to choose, and held out from both."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
    bounds = (slice(720, None), slice(360, 720), slice(360))
    train, choose, held_out = (Part(images[part], labels[part]) for part in bounds)
    return train, choose, held_out


def member(rate: jax.Array, decay: jax.Array) -> Member:
    """Return a fresh network with these hyperparameters; all start from the same weights."""
    opt = mxopt.NAG(learning_rate=rate, wd=decay, momentum=0.9, wd_mult={"bias*": 0.0})
    keys = jax.random.split(jax.random.key(0))
    params = {
        "kernel1": jax.random.normal(keys[0], (64, 64)) * np.sqrt(2 / 64),
        "bias1": jnp.zeros(64),
        "kernel2": jax.random.normal(keys[1], (64, 10)) * np.sqrt(2 / 64),
        "bias2": jnp.zeros(10),
    }
    return Member(opt, params, opt.init(params))


def predict(params: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    """Return the logits of a batch of images."""
    x = jax.nn.relu(images @ params["kernel1"] + params["bias1"])
    return x @ params["kernel2"] + params["bias2"]


def accuracy(params: dict[str, jax.Array], data: Part) -> jax.Array:
    """Return the share of images whose digit is the most likely one."""
    right = jnp.argmax(predict(params, data.images), axis=1) == data.labels
    return jnp.mean(right.astype(jnp.float32))


def train(one: Member, data: Part, batches: jax.Array) -> Member:
    """Trains one network, on a batch for every row of indices."""

    def loss_of(params: dict[str, jax.Array], batch: jax.Array) -> jax.Array:
        chances = jax.nn.log_softmax(predict(params, data.images[batch]))
        return -jnp.mean(jnp.take_along_axis(chances, data.labels[batch][:, None], axis=1))

    def body(carry: tuple[Any, Any], batch: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        return one.opt.step(params, jax.grad(loss_of)(params, batch), state), None

    (params, state), _ = jax.lax.scan(body, (one.params, one.state), batches)
    return one._replace(params=params, state=state)


@jax.jit
def trained(members: Member, data: Part, batches: jax.Array) -> Member:
    """Trains all networks, on the same batches."""
    return jax.vmap(train, in_axes=(0, None, None))(members, data, batches)


@jax.jit
def accuracies(members: Member, data: Part) -> jax.Array:
    """Return the accuracy of every network."""
    return jax.vmap(accuracy, in_axes=(0, None))(members.params, data)


@jax.jit
def next_generation(members: Member, scores: jax.Array, key: jax.Array) -> Member:
    """Replace the worst quarter by the best, with other hyperparameters near theirs."""
    quarter = MEMBERS // 4
    order = jnp.argsort(scores)
    worst, best = order[:quarter], order[-quarter:]
    keys = jax.random.split(key, 3)
    source = jnp.arange(MEMBERS).at[worst].set(jax.random.permutation(keys[0], best))
    opt, params, state = jax.tree.map(lambda leaf: leaf[source], members)

    def explored(key: jax.Array, values: jax.Array) -> jax.Array:
        factors = jax.random.choice(key, jnp.array([0.6, 1.0, 1.6]), (quarter,))
        return values.at[worst].multiply(factors)

    opt = opt.replace(
        learning_rate=explored(keys[1], opt.learning_rate), wd=explored(keys[2], opt.wd)
    )
    return Member(opt, params, state)


def draw_batches(seed: int, steps: int, images: int) -> jax.Array:
    """Rows of indices."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, images, (steps, BATCH)))


def sweep(steps: int) -> np.ndarray:
    """Return the held-out accuracy of all pairs: a row for each decay, a column for each rate."""
    data, _, held_out = load()
    rates, decays = np.meshgrid(np.float32(RATES), np.float32(DECAYS))
    members = jax.vmap(member)(rates.ravel(), decays.ravel())
    members = trained(members, data, draw_batches(1, steps, len(data.labels)))
    return np.asarray(accuracies(members, held_out)).reshape(SIDE, SIDE)


def evolve(rounds: int, steps: int) -> float:
    """Trains a population, says how it goes; returns the held-out accuracy of its best member."""
    data, choose, held_out = load()
    draw = np.random.default_rng(2)
    ranges = (np.log(RATES[[0, -1]]), np.log(DECAYS[[0, -1]]))
    start = (np.exp(draw.uniform(*bounds, MEMBERS)).astype(np.float32) for bounds in ranges)
    members = jax.vmap(member)(*start)
    print("round   best  median   learning rates of the best quarter")
    scores = accuracies(members, choose)
    for number in range(rounds):
        if number:
            members = next_generation(members, scores, jax.random.key(number))
        members = trained(members, data, draw_batches(3 + number, steps, len(data.labels)))
        scores = accuracies(members, choose)
        best = np.argsort(scores)[-MEMBERS // 4 :]
        rates = np.sort(members.opt.learning_rate[best])
        print(
            f"{number + 1:5}  {np.max(scores):5.1%}   {np.median(scores):5.1%}   "
            f"{rates[0]:.3g} to {rates[-1]:.3g}"
        )
    return float(accuracies(members, held_out)[np.argmax(scores)])


def draw(grid: np.ndarray, path: pathlib.Path) -> None:
    """Draws the heat map."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    def edges(values: np.ndarray) -> np.ndarray:
        half = np.sqrt(values[1] / values[0])
        return np.append(values / half, values[-1] * half)

    percent, lowest = 100 * grid, 85
    figure, axes = pyplot.subplots(figsize=(8, 6.2), layout="constrained")
    mesh = axes.pcolormesh(
        edges(RATES), edges(DECAYS), percent, vmin=lowest, vmax=100, cmap="viridis"
    )
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="weight decay")
    for axis, values in ((axes.xaxis, RATES), (axes.yaxis, DECAYS)):
        names = [np.format_float_positional(v, 1, fractional=False, trim="-") for v in values]
        axis.set_ticks(values, names)
        axis.set_ticks([], minor=True)
    best = np.unravel_index(np.argmax(grid), grid.shape)
    for row, column in np.ndindex(grid.shape):
        value = percent[row, column]
        axes.annotate(
            f"{value:.1f}",
            (RATES[column], DECAYS[row]),
            ha="center",
            va="center",
            color="black" if value > 94 else "white",
            weight="bold" if (row, column) == best else "normal",
        )
    axes.set_title(f"Held-out accuracy of {MEMBERS} networks trained at once, %", loc="left")
    figure.colorbar(mesh, ax=axes, extend="min")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> float:
    """Sweeps, draws, evolves; returns the best held-out accuracy on the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps only")
    parser.add_argument("--figure", type=pathlib.Path)
    options = parser.parse_args(arguments)
    figure = options.figure or FIGURE.with_suffix(".quick.png" if options.quick else ".png")
    steps, rounds = (20, 3) if options.quick else (400, 16)

    grid = sweep(steps)
    row, column = np.unravel_index(np.argmax(grid), grid.shape)
    print(
        f"best of the grid: {grid[row, column]:.2%} held out, with learning rate "
        f"{RATES[column]:.2g} and weight decay {DECAYS[row]:.2g}"
    )
    draw(grid, figure)
    print(f"heat map: {figure}")
    best = evolve(rounds, steps // rounds)
    print(f"best of the population: {best:.2%} held out")
    return float(grid[row, column])


if __name__ == "__main__":
    main()
