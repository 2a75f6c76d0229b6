"""States of a Trainer written for gluon, which has numbers where the Trainer has paths."""

import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmxopt as mxopt
from jaxmxopt import mxnet_files, optimizer
from jaxmxopt.interop import from_optax

# Sorted as gluon sorts: the batch norm's running means do not learn, and have numbers.
NAMES = [
    "norm0_beta",
    "norm0_running_mean",
    "norm0_running_var",
    "out10_weight",
    "out2_weight",
]


def trained(name: str = "sgd", **arguments: Any) -> mxopt.Trainer:
    weights = {"out2_weight": jnp.ones(3), "norm0_beta": jnp.ones(2), "out10_weight": jnp.ones(3)}
    trainer = mxopt.Trainer(weights, name, {"learning_rate": 0.1, **arguments})
    grads = {key: jnp.full_like(w, len(key)) for key, w in weights.items()}
    for _ in range(2):
        trainer.step(grads, batch_size=1)
    return trainer


def test_weights_have_their_numbers_in_gluon(tmp_path: Path) -> None:
    trainer = trained("adam")
    trainer.optimizer.set_lr_mult({"out2_weight": 0.5})
    mxnet_files.save_states(tmp_path / "a.states", trainer, names=NAMES)
    found = mxnet_files.load_states(tmp_path / "a.states")
    assert sorted(found.states) == [0, 3, 4]
    for number, state in found.states.items():
        np.testing.assert_array_equal(state[0], trainer.states[NAMES[int(number)]].mean)
    assert found.optimizer is not None
    attributes = found.optimizer.attributes
    assert attributes["_index_update_count"] == {0: 2, 3: 2, 4: 2}
    assert attributes["_all_index_update_counts"] == {0: {0: 2, 3: 2, 4: 2}}
    assert attributes["lr_mult"] == {4: 0.5}
    # Nothing of the Trainer has changed.
    assert trainer.optimizer._index_update_count == dict.fromkeys(trainer.states, 2)


def test_what_was_written_for_gluon_goes_on_here(tmp_path: Path) -> None:
    trainer, again = trained(momentum=0.9), trained(momentum=0.9)
    names = [name for name in NAMES if "running" not in name]
    mxnet_files.save_states(tmp_path / "a.states", trainer, names=names)
    again.load_states(tmp_path / "a.states")
    assert again.optimizer.num_update == 2
    for state, other in zip(*map(jax.tree.leaves, (again.states, trainer.states)), strict=True):
        np.testing.assert_array_equal(state, other)


def test_the_sums_of_lbsgd_have_numbers_too(tmp_path: Path) -> None:
    mxnet_files.save_states(tmp_path / "a.states", trained("lbsgd"), names=NAMES)
    found = mxnet_files.load_states(tmp_path / "a.states").optimizer
    assert found is not None
    assert sorted(found.attributes["cumgrads"]) == [0, 3, 4]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (None, ValueError, "names must be given for a Trainer, .* got None"),
        (NAMES[1:], ValueError, "names must hold every weight, got no 'norm0_beta'"),
        ([*NAMES, "out2_weight"], ValueError, "names must differ, got 'out2_weight' twice"),
        ("norm0_beta", TypeError, "names must be a list of strings"),
        ([0, 1, 2], TypeError, "names must be a list of strings"),
    ],
)
def test_names_are_checked(tmp_path: Path, names: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=r"save_states\(.*\): " + message):
        mxnet_files.save_states(tmp_path / "a.states", trained(), names=names)
    assert list(tmp_path.iterdir()) == []


def test_what_mxnet_has_not_is_refused(tmp_path: Path) -> None:
    wrapped: list[Any] = [mxopt.EMA(mxopt.SGD()), from_optax(optax.sgd(0.1))]
    for opt in wrapped:
        trainer = mxopt.Trainer({"norm0_beta": jnp.ones(2)}, opt)
        with pytest.raises(ValueError, match="must be one that MXNet has, got"):
            mxnet_files.save_states(tmp_path / "a.states", trainer, names=NAMES)


def test_other_files_are_called_what_they_are() -> None:
    with pytest.raises(ValueError, match=r"this is no \.params file: .* got b'import o'"):
        mxnet_files.load_params(b"import os\n")
    for content, shown in ((np.ones(3), "an array"), ([1], "a list"), ("x", "a str")):
        updater = mxopt.get_updater(optimizer.SGD())
        with pytest.raises(ValueError, match=rf"this is no \.states file: .* got {shown}\."):
            updater.set_states(pickle.dumps(content))


def test_states_of_another_algorithm_are_shown(tmp_path: Path) -> None:
    mxnet_files.save_states(
        tmp_path / "a.states", trained("adam"), names=NAMES, dump_optimizer=False
    )
    updater = mxopt.get_updater(optimizer.SGD(momentum=0.9))
    with pytest.raises(ValueError, match=r"must be mom, got \(an array of .*another algorithm"):
        updater.set_states((tmp_path / "a.states").read_bytes())


def test_names_say_what_the_numbers_of_gluon_are(tmp_path: Path) -> None:
    file, order = tmp_path / "a.states", [f"dense{n}_weight" for n in (0, 10, 11, 2)]
    weights = {name: jnp.ones(2) for name in order}
    trainer = mxopt.Trainer(weights, "sgd", {"momentum": 0.9})
    trainer.step({name: jnp.full(2, float(n)) for n, name in enumerate(order)}, 1)
    mxnet_files.save_states(file, trainer, names=["running_mean", *order])
    layers = mxopt.Trainer([jnp.ones(2)] * 4, "sgd", {"momentum": 0.9})
    with pytest.warns(UserWarning, match="names= says gluon's order"):
        layers.load_states(file)
    layers.load_states(file, names=["running_mean", "0", "2", "3", "1"])
    for mine, theirs in zip("0231", order, strict=True):
        np.testing.assert_array_equal(layers.states[mine].mom, trainer.states[theirs].mom)
    for names in (["0", "1", "2"], ["0", "1", "2", "3", "3"]):
        with pytest.raises(ValueError, match=r"names must hold every weight once, got '3' [02] t"):
            layers.load_states(file, names=names)
    layers.save_states(file)
    with pytest.raises(ValueError, match="names must be left out, as the file has names itself"):
        layers.load_states(file, names=["0", "1", "2", "3"])


@pytest.mark.parametrize("dump", [True, False])
def test_a_wrapper_is_not_replaced(dump: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.states"
    mxnet_files.save_states(file, trained("adam"), names=NAMES, dump_optimizer=dump)
    opt = mxopt.EMA(mxopt.Adam())
    updater = mxopt.get_updater(opt)
    with pytest.raises(ValueError, match=r"without wrappers, .* got EMA\(definition=Adam"):
        updater.set_states(file.read_bytes())
    assert updater.optimizer.definition == opt
    assert updater.states == {}
