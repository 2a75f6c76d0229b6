"""The fuzzer of MXNet's files, for a moment."""

import numpy as np
from fuzz_mxnet_files import attempt, corpus, fuzz, mutated

from jaxmxopt.mxnet_files import load_states


def test_mutated_files_are_read_or_refused() -> None:
    outcomes, findings = fuzz(seconds=4, seed=0)
    assert not findings, findings[0]
    assert outcomes["read"]
    assert outcomes["refused"]


def test_the_corpus_is_read_as_it_is() -> None:
    files = corpus()
    assert len(files) > 200
    assert {attempt(load, data) for _, data, load in files} == {"read"}


def test_a_seed_gives_the_same_files() -> None:
    _, data, _ = corpus()[0]
    first, again = (mutated(data, data, np.random.default_rng(3)) for _ in range(2))
    assert first == again


def test_other_errors_are_found() -> None:
    def failing(data: bytes) -> None:
        raise KeyError(data)

    assert "KeyError" in attempt(failing, b"x")
    assert attempt(load_states, b"x") == "refused"
