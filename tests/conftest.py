"""Settings of every test: eight CPU devices, strict promotion, fixed seeds."""

import os

# Read when jax is imported, so before it.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import random
from collections.abc import Iterator

import hypothesis
import jax
import numpy as np
import pytest
from samples import ALGORITHMS, OF_PRODUCTS

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "fast",
    deadline=None,
    max_examples=25,
    derandomize=True,
    database=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.load_profile("fast")


# Where the elements of a weight lie decides nothing there. Products of matrices have to bring them
# together: test_matrices.py says how.
OF_PLACES = ("test_sharding", "test_sharding_of_steps", "test_small_weights")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for `cls` once for every exported algorithm."""
    if "cls" in metafunc.fixturenames:
        kinds = ALGORITHMS
        if metafunc.module.__name__ in OF_PLACES:
            kinds = [cls for cls in ALGORITHMS if cls.__name__ not in OF_PRODUCTS]
        metafunc.parametrize("cls", kinds, ids=lambda cls: cls.__name__)


@pytest.fixture
def shared_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets two weights of one shape share arrays, as hundreds do at the shipped settings."""
    monkeypatch.setattr("jaxmxopt._core.layout.MANY", 2)


@pytest.fixture(params=["shipped", "shared"])
def thresholds(request: pytest.FixtureRequest) -> None:
    """Runs a test at the shipped settings, and once more with arrays that weights share."""
    if request.param == "shared":
        request.getfixturevalue("shared_arrays")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Starts the global generators anew for every test."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


@pytest.fixture(scope="module")
def compiled_quickly() -> Iterator[None]:
    """For modules where what is computed counts, and most of the time would go into compiling."""
    # What was compiled in the other way would be used again.
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture
def x64() -> Iterator[None]:
    """64-bit types for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


class Compilations:
    """Counts what XLA compiles while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Compilations":
        self.count = 0
        _COUNTERS.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        _COUNTERS.remove(self)


_COUNTERS: list[Compilations] = []


def _on_duration(event: str, duration: float, **kwargs: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        for counter in _COUNTERS:
            counter.count += 1


jax.monitoring.register_event_duration_secs_listener(_on_duration)


@pytest.fixture
def compilations() -> Compilations:
    """A context that counts compilations: `with compilations as seen: ...`, `seen.count`."""
    return Compilations()
