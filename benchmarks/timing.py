"""Interleaved timing: every contender runs once a round, in turning order; medians are compared."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

Run = Callable[[], None]


def seconds(run: Run) -> float:
    """Return the wall time of one call, which blocks until its work is done."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(
    runs: Mapping[str, Callable[[], float]], rounds: int, tick: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return the median of each contender in milliseconds; each gives the seconds of one call."""
    names = list(runs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken = runs[name]()
            if turn:
                samples[name].append(taken)
        tick()
    return {name: 1e3 * statistics.median(taken) for name, taken in samples.items()}


def batches(run: Run, calls: int) -> Callable[[], float]:
    """Return the seconds of one call, measured over many: for calls of microseconds."""

    def measured() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    return measured


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of ratios."""
    return statistics.geometric_mean(list(values))
