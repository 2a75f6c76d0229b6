"""What a `.states` file of MXNet is for: optimizers and states that go on from there."""

import copy
from collections.abc import Hashable, Mapping
from typing import Any

import jax.numpy as jnp

from jaxmxopt._core.compiled import slots_and_master
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._core.state import State
from jaxmxopt._mxnet.owned import owned
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._mxnet.schedules import schedule_of
from jaxmxopt._mxnet.slots import slots_of
from jaxmxopt._mxnet.states import StatesFile
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.optimizers_of_mxnet import algorithm_of, counts_of, definition_of, kept_of

__all__ = ["restored", "states_of"]


def states_of(
    file: StatesFile, opt: OptimizerDef, num_update: int | None, weights: Mapping[Hashable, Any]
) -> dict[Hashable, State]:
    """The states of weights, each with its count, as `OptimizerDef.update` takes them.

    Args:
        file: what was read.
        opt: the algorithm.
        num_update: the count where the file has none.
        weights: by index, all those of the file.

    Raises:
        ValueError: the states are not of this algorithm or of these weights.
    """
    counts = None if file.optimizer is None else counts_of(file.optimizer)
    first = opt.begin_num_update if num_update is None else num_update
    found: dict[Hashable, State] = {}
    for index, state in _slots(file, opt, weights).items():
        slots, master = slots_and_master(state)
        count = first if counts is None else counts.of(index, first)
        found[index] = State(jnp.asarray(count, jnp.int32), slots, master)
    return found


def _slots(file: StatesFile, opt: OptimizerDef, weights: Mapping[Hashable, Any]) -> dict[Any, Any]:
    """Slots, or a `MasterState`, of every weight that has something to go on from."""
    found = {
        index: slots_of(
            opt, index, state, file.version, kept_of(file.optimizer, opt, index), weights.get(index)
        )
        for index, state in file.states.items()
    }
    return {index: state for index, state in found.items() if state is not None}


def restored(file: StatesFile, optimizer: Optimizer) -> tuple[Optimizer, dict[Any, Any]]:
    """What an Updater with this optimizer goes on with: an optimizer and states by index.

    As in MXNet the optimizer of the file takes the place of the Updater's, if there is one. One of
    somebody's own class cannot be made from a file: the Updater's, if it is of that class,
    takes over what the file says.

    Args:
        file: what was read.
        optimizer: of the Updater. It is not changed; where the file has none, a copy goes on.

    Raises:
        ValueError: the states are not of this algorithm, or the recorded optimizer is unknown.
    """
    record = file.optimizer
    made = _copy(optimizer) if record is None else _taken_over(record, optimizer)
    if made._own_update:
        return made, owned(file.states)
    return made, _slots(file, made.definition, {})


def _copy(optimizer: Optimizer) -> Optimizer:
    made = copy.copy(optimizer)
    made.param_dict = optimizer.param_dict
    return made


def _taken_over(record: MXNetRecord, optimizer: Optimizer) -> Optimizer:
    """An optimizer that is as far as a recorded one was."""
    schedule = _schedule(record.attributes.get("lr_scheduler"), optimizer)
    wd_mult = record.attributes.get("wd_mult")
    if algorithm_of(record) is not None:
        definition = definition_of(record, schedule)
        wd_mult = definition.wd_mult
        if type(optimizer._algorithm) is type(definition):
            made = _copy(optimizer)
            made._adopt(definition)
        else:
            made = Optimizer.create_optimizer(definition)
            made.param_dict = optimizer.param_dict
    elif type(optimizer).__name__ == record.name:
        made = _copy(optimizer)
        _set_numbers(made, record, schedule)
    else:
        raise ValueError(
            f"the optimizer must be one of MXNet's own or of the class of the Updater's, "
            f"got {record.module}.{record.name} for {type(optimizer).__name__}."
        )
    counts = counts_of(record)
    if schedule is not None:
        _set(made, "lr", record.attributes.get("lr"))
    made.idx2name = dict(record.attributes.get("idx2name") or {})
    made.lr_mult = dict(record.attributes.get("lr_mult") or {})
    made.wd_mult = dict(wd_mult or {})
    made.sym_info = record.attributes.get("sym_info") or ()
    made.num_update = counts.num_update
    made._all_index_update_counts = {
        device: dict(by_index) for device, by_index in counts.by_device.items()
    }
    made._set_current_context(counts.device)
    return made


def _schedule(record: MXNetRecord | None, optimizer: Optimizer) -> Any:
    """The schedule to go on with: MXNet's own, or the optimizer's if it is of the same class."""
    if record is None:
        return None
    given = optimizer.lr_scheduler
    if record.module.split(".")[0] != "mxnet" and type(given).__name__ == record.name:
        return given
    return schedule_of(record)


def _set_numbers(made: Optimizer, record: MXNetRecord, schedule: Any) -> None:
    """Sets the numbers that an optimizer of somebody's own class has."""
    made.lr_scheduler = schedule
    for name, value in record.attributes.items():
        plain = value is None or isinstance(value, (bool, int, float, str))
        if plain and name != "lr_scheduler" and hasattr(made, name):
            _set(made, name, value)


def _set(made: Optimizer, name: str, value: Any) -> None:
    try:
        setattr(made, name, value)
    except TypeError as error:
        raise ValueError(str(error)) from None
