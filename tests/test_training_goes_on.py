"""Training that MXNet saved in the middle goes on here, and with it what is written back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import mxnet_training
import numpy as np
import pytest
from mxnet_training import FILES, RECORDED, STEPS, TRAININGS, Middle, case_named, optimizer_of

import jaxmxopt as mxopt
from jaxmxopt import lr_scheduler
from jaxmxopt._mxnet.states import StatesFile, read_states
from jaxmxopt._stateful.mxnet_optimizers import restored
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.updater import Updater, get_updater
from jaxmxopt.mxnet_files import MXNetRecord, load_states, save_states, to_definition, to_states

IN_1 = [(name, case) for name, case in RECORDED if TRAININGS[name].mxnet == "1.9.1"]


def close(weights: list[Any], expected: list[np.ndarray], name: str) -> None:
    """Equal but for the rounding of fifty updates, measured by the largest element."""
    for weight, other in zip(weights, expected, strict=True):
        found, wanted = np.asarray(weight), np.asarray(other)
        assert found.dtype == wanted.dtype
        scale = np.abs(wanted.astype(float)).max()
        unit = float(jnp.finfo(wanted.dtype).eps)
        error = np.abs(found.astype(float) - wanted.astype(float)).max() / scale
        assert error <= (60 * unit if wanted.dtype == np.float32 else unit), (name, error / unit)


# A process of its own compares these to the bit.
EXACT = ("rich", "half_bare")
# Norms are summed in another order.
WITH_NORMS = ("lars", "lamb", "lamb_bounded", "lans")


@pytest.mark.parametrize(("name", "case"), [r for r in RECORDED if r[1] not in EXACT])
def test_the_same_weights_as_mxnet(name: str, case: str) -> None:
    middle = Middle(name, case)
    updater = middle.updater()
    close(middle.train(updater, middle.weights, range(STEPS)), middle.expected, name)


@pytest.mark.parametrize("name", WITH_NORMS)
@pytest.mark.parametrize("case", EXACT)
def test_the_same_weights_as_mxnet_with_norms(name: str, case: str) -> None:
    middle = Middle(name, case)
    close(middle.train(middle.updater(), middle.weights, range(STEPS)), middle.expected, name)


def test_bit_for_bit() -> None:
    # Without fused multiply and add, as in MXNet's kernels.
    settings = os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX"}
    command = [sys.executable, "-W", "error", str(Path(mxnet_training.__file__)), *EXACT]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    different = [key for key in json.loads(done.stdout) if key.split("/")[0] not in WITH_NORMS]
    assert different == []


def test_a_new_optimizer_gives_other_weights() -> None:
    middle = Middle("adam", "plain")
    updater = get_updater(optimizer_of(TRAININGS["adam"], case_named("plain"), 0))
    found = middle.train(updater, middle.weights, range(STEPS))
    assert (
        max(float(jnp.abs(a - b).max()) for a, b in zip(found, middle.expected, strict=True)) > 1e-2
    )


@pytest.mark.parametrize("name", [n for n in TRAININGS if TRAININGS[n].weights == 3])
def test_pure_states_go_on_too(name: str) -> None:
    middle = Middle(name, "plain")
    found = load_states(middle.states)
    assert found.optimizer is not None
    opt = to_definition(found.optimizer)
    params = [jnp.asarray(weight) for weight in middle.weights]
    states = to_states(found, dict(enumerate(params)))
    assert {int(state.num_update) for state in states.values()} <= {STEPS, 0}
    state = opt.pack(params, [states[k] for k in range(len(params))])
    for step in range(STEPS):
        grads = [jnp.asarray(grad[step]) for grad in middle.grads]
        params, state = opt.step(params, grads, state)
    close(params, middle.expected, name)


@pytest.mark.parametrize(("name", "case"), IN_1)
def test_written_back_is_what_was_read(name: str, case: str, tmp_path: Path) -> None:
    middle = Middle(name, case)
    updater = middle.updater()
    dump = case_named(case).dump
    save_states(tmp_path / "again.states", updater, dump_optimizer=dump)
    first, again = (load_states(data) for data in (middle.states, tmp_path / "again.states"))
    assert again.version == 1
    assert jax.tree.structure(again.states) == jax.tree.structure(first.states)
    for array, other in zip(*map(jax.tree.leaves, (again.states, first.states)), strict=True):
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other)
    assert (again.optimizer is None) == (first.optimizer is None) == (not dump)
    if again.optimizer is not None and first.optimizer is not None:
        assert again.optimizer[:2] == first.optimizer[:2]
        assert_same_attributes(again.optimizer.attributes, first.optimizer.attributes)


def assert_same_attributes(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    if found.get("count") != expected.get("count"):
        # AdaDelta never asks for its rate; MXNet's schedule catches up if it is asked.
        assert expected["count"] == 0
        found = found | {"count": 0, "base_lr": expected["base_lr"], "cur_step_ind": 0}
    for key, value in expected.items():
        if key == "lr_scheduler" and value is not None:
            assert found[key][:2] == value[:2]
            assert_same_attributes(found[key].attributes, value.attributes)
        elif key == "cumgrads":
            for index, held in value.items():
                assert found[key][index]["num_cums"] == held["num_cums"]
                np.testing.assert_array_equal(found[key][index]["cum_grad"], held["cum_grad"])
        elif isinstance(value, float):
            assert found[key] == pytest.approx(value, rel=1e-6 if key == "m_schedule" else 1e-14)
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("name", ["factor", "multifactor", "poly", "cosine"])
@pytest.mark.parametrize("done", [0, 1, 7, 10, 11, 30, 31, 60])
def test_schedules_are_written_as_mxnet_has_them(name: str, done: int, tmp_path: Path) -> None:
    made = {
        "factor": lr_scheduler.FactorScheduler(10, 0.5, 0.05, 1.0, 3, 0.1),
        "multifactor": lr_scheduler.MultiFactorScheduler([10, 30], 0.5, 1.0),
        "poly": lr_scheduler.PolyScheduler(30, 1.0, final_lr=0.1, warmup_steps=7),
        "cosine": lr_scheduler.CosineScheduler(30, 1.0),
    }[name]
    updater = get_updater(mxopt.SGD(lr_scheduler=made))
    updater.optimizer.num_update = done
    save_states(tmp_path / "a.states", updater)
    record = load_states(tmp_path / "a.states").optimizer
    assert record is not None
    assert to_definition(record).lr_scheduler == made
    attributes = record.attributes["lr_scheduler"].attributes
    assert (
        attributes["base_lr"] == made(max(done, made.warmup_steps) if done >= 7 else 0) or done < 7
    )


def test_what_mxnet_1_does_not_have_is_not_written(tmp_path: Path) -> None:
    def own(n: Any) -> Any:
        return 0.1

    for opt, message in (
        (mxopt.AdamW(), "must be one that MXNet 1.9.1 has, got AdamW"),
        (mxopt.SGD(lr_scheduler=own), "lr_scheduler must be one that MXNet has"),
    ):
        with pytest.raises(ValueError, match=message):
            save_states(tmp_path / "a.states", get_updater(opt))
    updater = get_updater(mxopt.SGD(momentum=0.9))
    updater(0.5, jnp.ones(2), jnp.ones(2))
    with pytest.raises(TypeError, match="integers or strings as keys"):
        save_states(tmp_path / "a.states", updater)
    updater = get_updater(mxopt.SGD(momentum=0.9))
    updater(0, jnp.ones(()), jnp.ones(()))
    with pytest.raises(ValueError, match="must have dimensions"):
        save_states(tmp_path / "a.states", updater)
    assert not list(tmp_path.iterdir())


def test_version_2_keeps_its_own_order() -> None:
    file = read_states((FILES / "2.0.0b1" / "rmsprop_centered.states").read_bytes())
    _, states = restored(file, Optimizer(mxopt.SGD()))
    assert states[0]._fields == ("n", "g", "delta")
    np.testing.assert_array_equal(states[0].g, file.states[0][0])
    np.testing.assert_array_equal(states[0].n, file.states[0][1])
    file = read_states((FILES / "2.0.0b1" / "sgd_half.states").read_bytes())
    _, states = restored(file, Optimizer(mxopt.SGD()))
    np.testing.assert_array_equal(states[0].master, file.states[0][0])
    optimizer, states = restored(
        read_states((FILES / "2.0.0b1" / "rmsprop.states").read_bytes()), Optimizer(mxopt.SGD())
    )
    assert optimizer.definition == mxopt.RMSProp(learning_rate=0.001, gamma1=0.9, gamma2=0.9)
    assert optimizer.num_update == 3


def test_version_2_decays_what_its_names_do_not_say() -> None:
    attributes = {"rescale_grad": 1.0, "num_update": 3, "lr": 0.1, "wd": 0.1, "momentum": 0.9}
    attributes |= {"use_fused_step": True, "idx2name": {0: "fc_weight", 1: "fc_bias"}}
    record = MXNetRecord("mxnet.optimizer.sgd", "SGD", attributes)
    made, _ = restored(StatesFile({}, record, 2), Optimizer(mxopt.SGD()))
    for opt in (made, Optimizer(made.definition)):
        assert opt._get_wds([0, 1]) == [0.1, 0.1]
    old = {name: value for name, value in attributes.items() if name != "use_fused_step"}
    record = MXNetRecord("mxnet.optimizer.optimizer", "SGD", old | {"wd_mult": {"fc_bias": 0.0}})
    made, _ = restored(StatesFile({}, record, 1), Optimizer(mxopt.SGD()))
    assert made._get_wds([0, 1]) == [0.1, 0.0]


def test_an_updater_takes_files_with_and_without_the_optimizer() -> None:
    for case in ("plain", "bare"):
        middle = Middle("adam", case)
        updater = get_updater(optimizer_of(middle.training, middle.case, 7))
        held, multipliers = updater.optimizer, {0: SimpleNamespace(lr_mult=1.0, wd_mult=1.0)}
        held.param_dict = multipliers
        updater.set_states(middle.states)
        assert updater.optimizer is held
        assert held.param_dict is multipliers
        assert held.num_update == (STEPS if case == "plain" else 7)
        assert updater.states.keys() == {0, 1, 2}


def test_a_trainer_takes_a_file_of_gluon(tmp_path: Path) -> None:
    path = FILES / "1.9.1" / "gluon_trainer.states"
    found = load_states(path)
    params = {f"p{k}": jnp.zeros(found.states[i][0].shape) for k, i in enumerate(found.states)}
    trainer = mxopt.Trainer(params, "adam")
    trainer.load_states(path)
    assert trainer.optimizer.num_update == 1
    for state, (mean, var) in zip(trainer.states.values(), found.states.values(), strict=True):
        np.testing.assert_array_equal(state.mean, mean)
        np.testing.assert_array_equal(state.var, var)


def test_row_sparse_states_become_dense() -> None:
    file = read_states((FILES / "1.9.1" / "row_sparse.states").read_bytes())
    optimizer, states = restored(file, Optimizer(mxopt.SGD()))
    assert type(optimizer.definition) is mxopt.Adam
    np.testing.assert_array_equal(states[0].mean, file.states[0][0].todense())


class Mine(Optimizer):
    """Somebody's own, as its file has it."""

    def __init__(self, momentum: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> Any:
        return weight, state


class Slow:
    """Somebody's own schedule."""

    def __call__(self, num_update: int) -> float:
        return 1.0 / num_update


def test_somebodys_own_class_takes_over_what_the_file_says() -> None:
    file = read_states((FILES / "1.9.1" / "own_classes.states").read_bytes())
    with pytest.raises(ValueError, match=r"one of MXNet's own, got __main__\.Slow"):
        restored(file, Optimizer(mxopt.SGD()))
    with pytest.raises(ValueError, match=r"got __main__\.Mine for Optimizer"):
        restored(file, Optimizer(mxopt.SGD(lr_scheduler=Slow())))
    own = Mine(lr_scheduler=Slow())
    optimizer, states = restored(file, own)
    assert type(optimizer) is Mine
    assert (optimizer.momentum, optimizer.num_update) == (0.9, 3)
    assert optimizer._index_update_count == {0: 3, 1: 3}
    assert (own.momentum, own.num_update) == (0.0, 0)
    np.testing.assert_array_equal(states[0], file.states[0])


@pytest.mark.parametrize(
    ("file", "opt", "message"),
    [
        ("adam", mxopt.SGD(momentum=0.9), "the state of 0 must be one of SGD"),
        ("sgd_momentum", mxopt.SGD(), "must be None, as momentum is 0"),
        ("sgd", mxopt.SGD(momentum=0.9), "must be mom, got None"),
        ("sgd_momentum", mxopt.Adam(), "must be mean and var, got an array of"),
        ("rmsprop", mxopt.RMSProp(centered=True), "must be n and g and delta"),
        ("ftml", mxopt.Adam(), "must be mean and var"),
    ],
)
def test_states_of_another_algorithm_are_refused(
    file: str, opt: mxopt.OptimizerDef, message: str
) -> None:
    states = read_states(Middle(file, "bare").states)
    before = Optimizer(opt)
    with pytest.raises(ValueError, match=message):
        restored(states, before)
    assert before.definition == opt


def test_weights_and_states_must_belong_together() -> None:
    found = load_states(Middle("adam", "plain").states)
    weights = {0: jnp.zeros((4, 3)), 1: jnp.zeros(3)}
    assert to_states(found, weights).keys() == {0, 1}
    with pytest.raises(ValueError, match=r"to_states: the state of 1 must be .* got \(3,\)"):
        to_states(found, {**weights, 1: jnp.zeros(4)})
    with pytest.raises(ValueError, match="must have a state of 7"):
        to_states(found, {7: jnp.zeros(4)})
    bare = load_states(Middle("adam", "bare").states)
    with pytest.raises(ValueError, match="definition must be given"):
        to_states(bare, weights)
    states = to_states(bare, weights, mxopt.Adam(), num_update=50)
    assert states[1].num_update == 50


def test_wrong_numbers_in_an_optimizer_are_refused() -> None:
    record = load_states(Middle("adam", "plain").states).optimizer
    assert record is not None
    for name, value, message in (
        ("beta1", 1.5, r"beta1 must be in \[0, 1\), got 1.5"),
        ("lr", None, "learning_rate"),
        ("wd", float("nan"), "wd must be in"),
        ("epsilon", None, "epsilon must be"),
        ("begin_num_update", 1.5, "begin_num_update must be"),
    ):
        changed = record._replace(attributes={**record.attributes, name: value})
        if name == "lr":
            assert to_definition(changed).learning_rate == 0.001
            continue
        with pytest.raises(ValueError, match=message):
            to_definition(changed)
    with pytest.raises(ValueError, match="must be one of MXNet's own"):
        to_definition(record._replace(module="somewhere"))


def test_an_updater_is_left_alone_where_loading_fails() -> None:
    file = read_states(Middle("adam", "plain").states)
    assert file.optimizer is not None
    counts = {0: {0: -1}}
    broken = file.optimizer.attributes | {"_all_index_update_counts": counts}
    file = file._replace(optimizer=file.optimizer._replace(attributes=broken))
    updater = Updater(mxopt.SGD())
    with pytest.raises(ValueError, match="counts must be integers in"):
        restored(file, updater.optimizer)
    assert updater.optimizer.definition == mxopt.SGD()
