"""Every example runs, in a short form, and writes its picture."""

import pathlib
import runpy
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path):
    """Runs an example as its user would, with arguments."""

    def run_example(name: str, *arguments: str) -> pathlib.Path:
        figure = tmp_path / "figure.png"
        path = str(EXAMPLES / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *arguments, "--figure", str(figure)])
        with monkeypatch.context() as patched:
            # Examples are written for JAX as it comes.
            patched.setattr("jax.config.jax_numpy_dtype_promotion", "standard", raising=False)
            runpy.run_path(path, run_name="__main__")
        return figure

    return run_example


def test_digits_trains_and_draws(run) -> None:
    assert run("digits", "--short").stat().st_size > 10_000
