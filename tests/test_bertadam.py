"""gluon-nlp's BERTAdam: its steps and its `.states`, as MXNet computed and wrote them."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import operators
import pytest
from samples import assert_near

import jaxmxopt as mxopt
from jaxmxopt import mxnet_files, ops, optimizer

META, ARRAYS = operators.recorded("operators_1")
TRAINING = META["trainings"]["bertadam"]
STATES = ARRAYS[f"bertadam/{TRAINING['states']}"].tobytes()


def of(numbers: list[int]) -> list[np.ndarray]:
    return [ARRAYS[f"bertadam/{number}"] for number in numbers]


def follow(updater: Any, steps: Any) -> None:
    weights: Any = of(steps[0]["weights"])
    for step in steps:
        weights = updater(list(range(len(weights))), of(step["grads"]), weights)
        assert [weight.dtype for weight in weights] == [w.dtype for w in of(step["new"])]
        for weight, expected in zip(weights, of(step["new"]), strict=True):
            units = 2e-3 if expected.dtype == np.float16 else 1e-6
            np.testing.assert_allclose(weight, expected, rtol=units, atol=units)


def test_its_name_gives_its_numbers() -> None:
    opt = optimizer.create("bertadam", **TRAINING["kwargs"])
    assert isinstance(opt, optimizer.BERTAdam)
    follow(optimizer.get_updater(opt), TRAINING["steps"])


def test_training_goes_on_from_its_states() -> None:
    updater = optimizer.get_updater(optimizer.BERTAdam(multi_precision=True))
    updater.set_states(STATES)
    assert updater.optimizer.definition.epsilon == TRAINING["kwargs"]["epsilon"]
    assert updater.optimizer.num_update == TRAINING["states_after"]
    follow(updater, TRAINING["steps"][TRAINING["states_after"] :])


def test_its_states_are_written_as_gluon_nlp_reads_them(tmp_path: Path) -> None:
    updater = optimizer.get_updater(optimizer.BERTAdam(multi_precision=True))
    updater.set_states(STATES)
    mxnet_files.save_states(tmp_path / "again.states", updater)
    written = mxnet_files.load_states(tmp_path / "again.states")
    again = mxnet_files.load_states(STATES)
    assert (written.optimizer.module, written.optimizer.name) == (
        again.optimizer.module,
        again.optimizer.name,
    )
    assert again.optimizer.module == "gluonnlp.optimizer.bert_adam"
    (mean, _), master = written.states[1]
    assert (mean.shape, master.dtype) == ((3, 2), jnp.float32)


def test_it_is_the_operator_of_mxnet() -> None:
    weight, grad = jnp.array([1.0, -2.0], jnp.float32), jnp.array([0.5, 3.0], jnp.float32)
    opt = mxopt.BERTAdam(learning_rate=0.1, wd=0.01)
    new, state = opt.update(0, weight, grad, opt.create_state(0, weight))
    zeros = [jnp.zeros_like(weight)]
    lists = ops.multi_adamw_update(
        [weight], [grad], zeros, zeros, 1.0, lrs=[1.0], wds=[0.01], etas=[0.1], epsilon=1e-6
    )
    assert_near((new, *state.slots), tuple(each[0] for each in lists))


@pytest.mark.parametrize("name", ["BERTAdam", "bertadam"])
def test_the_name_is_registered(name: str) -> None:
    trainer = mxopt.Trainer({"w": jnp.ones(2)}, name, {"learning_rate": 0.1})
    trainer.step({"w": jnp.ones(2)}, 1)
    assert trainer.optimizer.definition.correct_bias is False
