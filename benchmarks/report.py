"""A Markdown table and pictures from the measurements."""

import pathlib
from typing import Any

COLOURS = {
    "jaxmxopt": "#0072b2",
    "optax": "#e69f00",
    "torch fused": "#999999",
    "mxnet": "#009e73",
}


def write(result: dict[str, Any], folder: pathlib.Path, device: str) -> None:
    """Writes `<device>.md` and `<device>-<tree>.png`."""
    timed = [row for row in result["rows"] if "milliseconds" in row]
    (folder / f"{device}.md").write_text(_table(result["machine"], timed))
    for tree in ("resnet50", "bert_base", "small1000"):
        rows = [row for row in timed if row["case"].endswith(tree) and "limit" in row["ratios"]]
        if rows:
            _bars(tree, rows, folder / f"{device}-{tree}.png")


def _table(machine: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    others = ["optax", "torch fused", "mxnet", "bare", "limit"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        f"{machine['device']}, {machine['cores']} cores; {versions}. Medians; a ratio below 1 "
        "means that jaxmxopt is faster.",
        "",
        f"| case | ms | {' | '.join(f'/ {name}' for name in others)} |",
        f"|---|---|{'---|' * len(others)}",
    ]
    for row in rows:
        ratios = [f"{row['ratios'][name]:.2f}" if name in row["ratios"] else "" for name in others]
        lines.append(
            f"| {row['case']} | {row['milliseconds']['jaxmxopt']:.3g} | {' | '.join(ratios)} |"
        )
    return "\n".join(lines) + "\n"


def _bars(tree: str, rows: list[dict[str, Any]], path: pathlib.Path) -> None:
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
