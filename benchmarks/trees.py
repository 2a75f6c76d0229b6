"""The shapes that are measured."""

from collections.abc import Callable

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    """161 weights, 25.6 million numbers: convolutions as (out, in, height, width)."""
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    width = 64
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(planes, width, 1, 1), (planes,), (planes,)]
            shapes += [(planes, planes, 3, 3), (planes,), (planes,)]
            shapes += [(4 * planes, planes, 1, 1), (4 * planes,), (4 * planes,)]
            if block == 0:
                shapes += [(4 * planes, width, 1, 1), (4 * planes,), (4 * planes,)]
            width = 4 * planes
    return [*shapes, (1000, 2048), (1000,)]


def bert_base() -> Shapes:
    """197 weights, 109 million numbers."""
    width, inner = 768, 3072
    shapes: Shapes = [(30522, width), (512, width), (2, width), (width,), (width,)]
    for _ in range(12):
        shapes += [(width, width), (width,)] * 4 + [(width,), (width,)]
        shapes += [(inner, width), (inner,), (width, inner), (width,), (width,), (width,)]
    return shapes


def small1000() -> Shapes:
    """1,000 vectors of 64."""
    return [(64,)] * 1000


# A network of the size that control problems have: 6,532 numbers.
SMALL_NET: Shapes = [(32, 64), (64,), (64, 64), (64,), (64, 4), (4,)]

TREES: dict[str, Callable[[], Shapes]] = {
    "resnet50": resnet50,
    "bert_base": bert_base,
    "small1000": small1000,
}
