"""Draws what laziness changes: one row of a table, whose gradients come seldom.

`python examples/lazy_rows.py` writes `examples/figures/lazy_rows.png`, or to where `--figure`
says.
"""

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmxopt as mxopt

FIGURE = pathlib.Path(__file__).parent / "figures" / "lazy_rows.png"
STEPS, TOUCHED = 40, (3, 4, 5, 25)
LAZY, DENSE = "#0072b2", "#d55e00"


def cases() -> dict[str, mxopt.OptimizerDef]:
    """One definition for each thing that laziness changes."""
    return {
        "momentum (SGD)": mxopt.SGD(learning_rate=0.1, momentum=0.9),
        "moments (Adam)": mxopt.Adam(learning_rate=0.1),
        "weight decay (SGD)": mxopt.SGD(learning_rate=0.1, wd=0.2),
    }


def row_of(opt: mxopt.OptimizerDef) -> np.ndarray[Any, Any]:
    """Return the first row of a table after each step; most gradients hold the second row alone."""
    touched = np.isin(np.arange(1, STEPS + 1), TOUCHED)

    def step(carry: Any, touched: jax.Array) -> tuple[Any, jax.Array]:
        table, state = carry
        rows = jnp.where(touched, 0, 1)[None]
        grad = mxopt.RowSparse(rows, jnp.ones((1, 1)), table.shape)
        table, state = opt.step(table, grad, state)
        return (table, state), table[0, 0]

    table = jnp.ones((2, 1))
    _, row = jax.lax.scan(step, (table, opt.init(table)), jnp.asarray(touched))
    return np.concatenate([[1.0], row])


def draw(path: pathlib.Path) -> None:
    """Draws the row with and without laziness, a panel a case."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    for axes, (title, opt) in zip(panels, cases().items(), strict=True):
        for lazy, name, colour in ((False, "dense", DENSE), (True, "lazy", LAZY)):
            row = row_of(opt.replace(lazy_update=lazy))
            axes.plot(row, color=colour, lw=1.8)
            axes.annotate(
                name,
                (STEPS, row[-1]),
                (4, 0),
                textcoords="offset points",
                color=colour,
                va="center",
            )
        low = axes.get_ylim()[0]
        axes.plot(TOUCHED, [low] * len(TOUCHED), "^", color="#444444", ms=6, clip_on=False)
        axes.set_ylim(bottom=low)
        axes.set_title(title, loc="left")
        axes.set_xlabel("step (▲: the row has a gradient)")
        axes.set_xlim(0, STEPS)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("value of the row")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=pathlib.Path, default=FIGURE)
    options = parser.parse_args(arguments)
    draw(options.figure)
    print(f"one row, lazy and dense: {options.figure}")


if __name__ == "__main__":
    main()
