"""A Markdown table and pictures from the measurements."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.timing import geometric_mean
from benchmarks.trees import TREES

COLOURS = {
    "jaxmxopt": "#0072b2",
    "optax": "#e69f00",
    "torch fused": "#999999",
    "mxnet": "#009e73",
}
Row = dict[str, Any]


def write(result: dict[str, Any], folder: pathlib.Path, device: str) -> None:
    """Write `<device>.md` and `<device>-<tree>.png`."""
    (folder / f"{device}.md").write_text("\n".join(_page(result)) + "\n")
    for tree in TREES:
        rows = [row for row in _steps(result["rows"]) if row["case"].endswith(tree)]
        if rows:
            _bars(tree, rows, folder / f"{device}-{tree}.png")


def show(table: pathlib.Path, page: pathlib.Path) -> None:
    """Put a table into a page, between `<!-- benchmarks/results/NAME -->` and `<!-- end -->`."""
    text, mark = page.read_text(), f"<!-- benchmarks/results/{table.name} -->\n"
    before, rest = text.split(mark)
    page.write_text(before + mark + table.read_text() + rest[rest.index("<!-- end -->") :])


def _steps(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if "limit" in row.get("ratios", ())]


def _page(result: dict[str, Any]) -> list[str]:
    machine, rows = result["machine"], result["rows"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    steps = _steps(rows)
    with_ratios = [row for row in rows if "ratios" in row and row not in steps]
    rowwise = [row for row in with_ratios if " rows of " in row["case"]]
    compiling = [row for row in with_ratios if "parts" in row]
    around = [row for row in with_ratios if row.get("around")]
    apart = [*rowwise, *compiling, *around]
    others = [row for row in with_ratios if row not in apart]
    return [
        f"{machine['device']}, {machine['cores']} cores; {versions}. Medians of interleaved "
        "rounds; a ratio below 1 means that jaxmxopt is faster.",
        "",
        "A donated step of a whole tree:",
        "",
        *_table(steps, ["optax", "torch fused", "mxnet", "limit"]),
        "",
        "The same over all trees, as a geometric mean of the ratios to optax:",
        "",
        *_means(steps),
        "",
        "One weight, a small net, the Trainer, and a step inside of a caller's jit:",
        "",
        *_table(others, ["optax", "bare", "torch fused", "mxnet"]),
        "",
        "What stands around an algorithm, in a caller's jit:",
        "",
        *_table(around, ["optax"]),
        "",
        "Lazy Adam on the rows of a table of 64 columns:",
        "",
        *_table(rowwise, ["mxnet", "torch", "a quarter of the height", "optax, dense"]),
        "",
        "Making a step of Adam ready, in seconds of processor time:",
        "",
        *_compiling(compiling),
        "",
        *_remarks(rows),
    ]


def _table(rows: list[Row], others: list[str]) -> list[str]:
    lines = [
        f"| case | ms | {' | '.join(f'/ {name}' for name in others)} |",
        f"|---|---|{'---|' * len(others)}",
    ]
    for row in rows:
        ratios = [f"{row['ratios'][name]:.3g}" if name in row["ratios"] else "" for name in others]
        mine = f"{row['milliseconds']['jaxmxopt']:.3g}"
        lines.append(f"| {row['case']} | {mine} | {' | '.join(ratios)} |")
    return lines


def _means(steps: list[Row]) -> list[str]:
    found: dict[str, list[float]] = {}
    for row in steps:
        found.setdefault(row["case"].split()[0], []).append(row["ratios"]["optax"])
    names, means = list(found), [f"{geometric_mean(ratios):.2f}" for ratios in found.values()]
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|", f"| {' | '.join(means)} |"]


def _compiling(rows: list[Row]) -> list[str]:
    lines = [
        "| case | trace | lower | compile | all | / optax | kernels a step | temporaries |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        parts = row["parts"]["jaxmxopt"]
        numbers = [f"{parts[name]:.2f}" for name in ("trace", "lower", "compile")]
        numbers += [f"{row['milliseconds']['jaxmxopt'] / 1e3:.2f}", f"{row['ratios']['optax']:.2f}"]
        numbers += [f"{parts['kernels']:.0f}", f"{100 * parts['temporary share']:.2g} %"]
        lines.append(f"| {row['case']} | {' | '.join(numbers)} |")
    return lines


REMARKS: dict[str, Callable[[Any], str]] = {
    "beside params, grads and state": lambda share: f"{100 * share:.2g} % of what is held",
    "first, second": lambda misses: f"{misses[1]}, after {misses[0]} by the first",
    "host milliseconds": lambda taken: (
        f"{taken['jaxmxopt']:.2f} ms on the host, of which {taken['bare']:.2f} ms are those of a "
        "jitted function that returns as many donated arrays"
    ),
}


def _remarks(rows: list[Row]) -> list[str]:
    return [
        f"- {row['case']}: {say(row[key])}"
        for row in rows
        for key, say in REMARKS.items()
        if key in row
    ]


def _bars(tree: str, rows: list[Row], path: pathlib.Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    width = 0.8 / len(COLOURS)
    for place, (name, colour) in enumerate(COLOURS.items()):
        found = [(n, row) for n, row in enumerate(rows) if name in row["milliseconds"]]
        heights = [row["milliseconds"][name] for _, row in found]
        spots = [n + (place - 1.5) * width for n, _ in found]
        axes.bar(spots, heights, width, color=colour, label=name)
    for n, row in enumerate(rows):
        limit = row["milliseconds"]["limit"]
        label = "the memory's limit" if n == 0 else None
        axes.plot([n - 0.45, n + 0.45], [limit, limit], color="black", lw=1.5, label=label)
    axes.set_xticks(range(len(rows)), [row["case"].split()[0] for row in rows])
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds a step")
    axes.set_title(f"One donated step of {tree}, lower is better", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=5, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
