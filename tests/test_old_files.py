"""Files that version 0.1.0 wrote load, and training goes on from them with the same numbers."""

import json

import jax.numpy as jnp
import pytest
from old_files import FOLDER, WAYS, definitions, of
from samples import OF_MXNET, assert_near, assert_same

from jaxmxopt import BERTAdam, checkpoint

EXPECTED = json.loads((FOLDER / "expected.json").read_text())
FILES = sorted(path.stem for path in FOLDER.glob("*.npz"))


@pytest.mark.filterwarnings("ignore:.*is of no weight", "ignore:.*half-precision weights")
@pytest.mark.parametrize("file", FILES)
def test_training_goes_on(file: str) -> None:
    way, _, name = file.partition("-")
    like = of(name, 0)
    expected = {key: jnp.asarray(w, like[key].dtype) for key, w in EXPECTED[file].items()}
    assert_near(WAYS[way](name, FOLDER / f"{file}.npz"), expected)


def test_there_is_a_file_for_every_algorithm_of_mxnet() -> None:
    assert {f"tree-{cls.__name__}" for cls in OF_MXNET if cls is not BERTAdam} <= set(FILES)
    assert set(FILES) == set(EXPECTED)


def test_flipped_bits_change_nothing_or_are_refused() -> None:
    """Where the checksums of format 1 say nothing, as of dates, nothing depends on it."""
    data, params = (FOLDER / "tree-SGD.npz").read_bytes(), of("SGD", 0)
    like = {"params": params, "state": definitions()["SGD"].init(params)}
    whole = checkpoint.loads(data, like, params=params)
    refused = 0
    for position in range(0, len(data), 29):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        try:
            assert_same(checkpoint.loads(bytes(flipped), like, params=params), whole)
        except ValueError:
            refused += 1
    assert refused > len(range(0, len(data), 29)) // 2
