"""Programs of MXNet's users, ported by hand, train to the losses that MXNet gives."""

import jax
import numpy as np
import pytest
from ported import FOLDER, PROGRAMS, ROUNDING, main_of, recorded

pytestmark = pytest.mark.usefixtures("compiled_quickly")
# Rates have been lowered by then, files read, and gradients have overflowed.
STEPS = 20


def test_there_are_twelve_programs_in_both_forms() -> None:
    assert len(PROGRAMS) >= 12
    assert [name for name in PROGRAMS if not (FOLDER / f"{name}.py").exists()] == []
    assert sorted(recorded()) == PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_ported_program_has_the_losses_of_mxnet(name: str) -> None:
    # Users have JAX as it comes.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        losses = main_of(name)(STEPS)
    np.testing.assert_allclose(losses, recorded()[name][:STEPS], rtol=ROUNDING[name])
