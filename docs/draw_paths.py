"""Draws the path of every algorithm down a curved valley: docs/figures/paths.png.

    python docs/draw_paths.py

Each algorithm goes with the best of 49 learning rates, all of them tried in one program by
`vmap`: the one that is lowest on average, on a logarithmic scale, and never leaves the picture.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxmxopt as mxopt

FIGURE = pathlib.Path(__file__).parent / "figures" / "paths.png"
START, BOTTOM = (-1.6, 1.3), (1.0, 1.0)
STEPS = 200
RATES = np.geomspace(1e-4, 10, 49)
PATH = "#0072b2"
LEGEND = f"○ start    ★ bottom\n• every ten steps, of {STEPS}"
# Titles, and the arguments that are not the defaults.
ALGORITHMS: list[tuple[str, type[mxopt.OptimizerDef], dict[str, Any]]] = [
    ("SGD", mxopt.SGD, {}),
    ("SGD, momentum", mxopt.SGD, {"momentum": 0.9}),
    ("NAG", mxopt.NAG, {"momentum": 0.9}),
    ("Signum", mxopt.Signum, {}),
    ("SGLD", mxopt.SGLD, {}),
    ("DCASGD", mxopt.DCASGD, {"momentum": 0.9}),
    ("LBSGD", mxopt.LBSGD, {"momentum": 0.9, "warmup_epochs": 1}),
    ("LARS", mxopt.LARS, {"momentum": 0.9, "eta": 1.0}),
    ("LAMB", mxopt.LAMB, {}),
    ("LANS", mxopt.LANS, {}),
    ("Adam", mxopt.Adam, {}),
    ("AdamW", mxopt.AdamW, {"wd": 0.1}),
    ("AdaBelief", mxopt.AdaBelief, {}),
    ("Adamax", mxopt.Adamax, {}),
    ("Nadam", mxopt.Nadam, {}),
    ("FTML", mxopt.FTML, {}),
    ("Lion", mxopt.Lion, {}),
    ("RAdam", mxopt.RAdam, {}),
    ("AdEMAMix", mxopt.AdEMAMix, {"warmup": 200.0}),
    ("ScheduleFreeSGD", mxopt.ScheduleFreeSGD, {}),
    ("ScheduleFreeAdamW", mxopt.ScheduleFreeAdamW, {}),
    ("Muon", mxopt.Muon, {}),
    ("SOAP", mxopt.SOAP, {}),
    ("Adafactor", mxopt.Adafactor, {}),
    ("AdaGrad", mxopt.AdaGrad, {}),
    ("GroupAdaGrad", mxopt.GroupAdaGrad, {}),
    ("AdaDelta", mxopt.AdaDelta, {"epsilon": 1e-3}),
    ("RMSProp", mxopt.RMSProp, {}),
    ("RMSProp, centered", mxopt.RMSProp, {"centered": True}),
    ("Ftrl", mxopt.Ftrl, {"lamda1": 0.0}),
]


def height(point: Any) -> Any:
    """Rosenbrock's valley, less steep than his."""
    x, y = point[..., 0], point[..., 1]
    return (1 - x) ** 2 + 10 * (y - x**2) ** 2


class Path(NamedTuple):
    """The points of a path, its rate, and the height that it ends at."""

    points: np.ndarray
    rate: float
    end: float


def walk(kind: type[mxopt.OptimizerDef], settings: dict[str, Any]) -> Path:
    """Return the path with the best of the rates."""

    def points(rate: Any) -> Any:
        opt = kind(learning_rate=rate, **settings)
        # A matrix of one row, as GroupAdaGrad has a rate for each row.
        first = jnp.asarray([START], jnp.float32)

        def step(carry: Any, _: None) -> Any:
            point, state = carry
            point, state = opt.step(point, jax.grad(lambda p: height(p[0]))(point), state)
            return (point, state), point[0]

        return jax.lax.scan(step, (first, opt.init(first)), None, STEPS)[1]

    tried = np.asarray(jax.jit(jax.vmap(points))(jnp.asarray(RATES, jnp.float32)), np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        heights = np.asarray(height(tried))
        inside = np.all((tried > (-2.1, -1.1)) & (tried < (2.1, 2.7)), axis=(1, 2))
        score = np.where(inside, np.mean(np.log10(heights + 1e-9), 1), np.inf)
    best = int(np.argmin(score))
    ends = heights[:, -1]
    return Path(np.vstack([START, tried[best]]), float(RATES[best]), float(ends[best]))


def draw(paths: dict[str, Path], file: pathlib.Path) -> None:
    """Small multiples on one surface, for comparison of shapes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    x, y = np.meshgrid(np.linspace(-2.1, 2.1, 240), np.linspace(-1.1, 2.7, 240))
    levels = np.log10(height(np.stack([x, y], -1)) + 1e-2)
    # A place is left for the legend.
    rows = len(paths) // 4 + 1
    figure, grid = pyplot.subplots(rows, 4, figsize=(10, 2.33 * rows), layout="constrained")
    for axes, (name, path) in zip(grid.flat, paths.items(), strict=False):
        axes.contourf(x, y, levels, 14, cmap="Greys", vmin=-3, vmax=8)
        axes.plot(*path.points.T, color=PATH, lw=1.4)
        axes.plot(*path.points[::10].T, ".", color=PATH, ms=5)
        axes.plot(*START, "o", mfc="white", mec="black", ms=6)
        axes.plot(*BOTTOM, "*", mfc="#d55e00", mec="white", ms=13)
        axes.set_title(name, loc="left", fontsize=11, weight="bold")
        rate = "no rate" if name == "AdaDelta" else f"rate {path.rate:.2g}"
        axes.set_xlabel(f"{rate}, ends at height {path.end:.0e}", fontsize=9)
    for axes in grid.flat:
        axes.set(xlim=(-2.1, 2.1), ylim=(-1.1, 2.7), xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(False)
    for axes in list(grid.flat)[len(paths) :]:
        axes.set_visible(False)
    figure.text(0.53, 0.09, LEGEND, fontsize=11, va="center", linespacing=1.6)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Walk and draws."""
    draw({name: walk(kind, settings) for name, kind, settings in ALGORITHMS}, FIGURE)


if __name__ == "__main__":
    main()
