"""Optimizers and states of ours as a `.states` file of MXNet 1."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmxopt._algorithms import ALGORITHMS, DCASGD, LARS, LBSGD, Nadam
from jaxmxopt._core.compiled import slots_and_master
from jaxmxopt._core.definition import OptimizerDef
from jaxmxopt._mxnet.pickle_write import write_pickle
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._mxnet.schedules import schedule_record
from jaxmxopt._mxnet.slots import nested
from jaxmxopt._stateful.optimizer import Optimizer
from jaxmxopt._stateful.optimizers_of_mxnet import attribute_names

__all__ = ["dumped"]

_ONLY_IN_2 = ("AdamW", "AdaBelief", "LANS")
_LAZY = ("SGD", "ccSGD", "LARS", "Adam")
# How many weights one call of MXNet's takes: its own defaults.
_AGGREGATED = {"SGD": 4, "ccSGD": 4, "LARS": 4, "LAMB": 45}


def dumped(
    optimizer: Optimizer,
    states: Mapping[Any, Any],
    dump_optimizer: bool,
    names: Sequence[str] | None = None,
) -> bytes:
    """Returns the bytes of a `.states` file.

    Args:
        optimizer: that the states are of.
        states: by index, as an Updater has them.
        dump_optimizer: write the optimizer too: MXNet then goes on with the counts.
        names: of the weights, in the order in which MXNet numbers them; by default their indices
            are written.

    Raises:
        ValueError: MXNet 1 has no such optimizer, schedule or array, or `names` lack a weight.
        TypeError: an index is neither an integer nor a string.
    """
    own = optimizer._own_update
    if own and dump_optimizer:
        raise ValueError(
            "the optimizer must be one that MXNet has, "
            f"got {type(optimizer).__name__}; leave it out with dump_optimizer=False."
        )
    opt = None if own else optimizer.definition
    keys = _numbers(names, states)
    written = {
        index: state if opt is None else nested(opt, state) for index, state in states.items()
    }
    written = _renamed(written, keys)
    if not dump_optimizer or opt is None:
        return write_pickle(written)
    return write_pickle((written, _record(optimizer, opt, states, keys)))


def _numbers(names: Sequence[str] | None, states: Mapping[Any, Any]) -> dict[Any, int]:
    """The number of every weight in gluon, by its path."""
    if names is None:
        return {}
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a list of strings, got {names!r:.200}.")
    numbers = {name: number for number, name in enumerate(names)}
    if len(numbers) < len(names):
        twice = next(name for number, name in enumerate(names) if numbers[name] != number)
        raise ValueError(f"names must differ, got {twice!r} twice.")
    missing = next((index for index in states if index not in numbers), None)
    if missing is not None:
        raise ValueError(f"names must hold every weight, got no {missing!r}.")
    return numbers


def _renamed(table: Mapping[Any, Any], keys: Mapping[Any, Any]) -> dict[Any, Any]:
    """A table by index as MXNet has it."""
    named = {keys.get(index, index): value for index, value in table.items()}
    return {int(i) if isinstance(i, np.integer) else i: value for i, value in named.items()}


def _record(
    optimizer: Optimizer, opt: OptimizerDef, states: Mapping[Any, Any], keys: Mapping[Any, Any]
) -> MXNetRecord:
    """The optimizer as MXNet would pickle it."""
    name = type(opt).__name__
    if name in _ONLY_IN_2 or ALGORITHMS.get(name) is not type(opt):
        raise ValueError(f"the optimizer must be one that MXNet 1.9.1 has, got {name}.")
    counts = {
        device: _renamed(by_index, keys)
        for device, by_index in optimizer._all_index_update_counts.items()
    }
    current = next(
        device
        for device, by_index in optimizer._all_index_update_counts.items()
        if by_index is optimizer._index_update_count
    )
    attributes: dict[str, Any] = {
        "rescale_grad": optimizer.rescale_grad,
        "lr_scheduler": schedule_record(optimizer.lr_scheduler, optimizer.num_update),
        "lr": optimizer.lr,
        "wd": optimizer.wd,
        "lr_mult": _renamed(optimizer.lr_mult, keys),
        "wd_mult": _renamed(optimizer.wd_mult, keys),
        "begin_num_update": optimizer.begin_num_update,
        "num_update": optimizer.num_update,
        "_all_index_update_counts": counts,
        "_index_update_count": counts[current],
        "clip_gradient": optimizer.clip_gradient,
        "multi_precision": optimizer.multi_precision,
        "aggregate_num": _AGGREGATED.get(name, 0),
        "idx2name": _renamed(optimizer.idx2name, keys),
        "sym_info": optimizer.sym_info,
        "allow_np_array": False,
    }
    for field, attribute in attribute_names(type(opt), 1).items():
        if field != "lazy_update" or name in _LAZY:
            attributes.setdefault(attribute, getattr(opt, field))
    slots = {index: slots_and_master(state)[0] for index, state in states.items()}
    attributes |= _kept(optimizer, opt, slots, keys)
    module = "contrib" if name == "GroupAdaGrad" else "optimizer"
    return MXNetRecord(f"mxnet.optimizer.{module}", name, attributes)


def _kept(
    optimizer: Optimizer, opt: OptimizerDef, slots: Mapping[Any, Any], keys: Mapping[Any, Any]
) -> dict[str, Any]:
    """Attributes beyond the arguments, some of which are slots with us."""
    if isinstance(opt, Nadam):
        # One number for all weights in MXNet.
        return {"m_schedule": min((float(s.m_schedule) for s in slots.values()), default=1.0)}
    if isinstance(opt, DCASGD):
        return {"weight_previous": {}}
    if isinstance(opt, LARS):
        last = _last_rate(optimizer, opt, slots)
        return {"skip": 0, "last_lr": last, "cur_lr": last}
    if isinstance(opt, LBSGD):
        cumulated = {
            index: {"cum_grad": held.cum_grad, "num_cums": int(held.num_cums)}
            for index, held in slots.items()
        }
        first = opt.begin_epoch * opt.updates_per_epoch
        inner = {"lbmult": 1, "adaptive": False, "admult": 1, "init_updates": first}
        return {"cumgrads": _renamed(cumulated, keys), **inner}
    return {}


def _last_rate(optimizer: Optimizer, opt: OptimizerDef, slots: Mapping[Any, Any]) -> float | None:
    """The learning rate of the last update, before multipliers; None before the first."""
    for index, held in slots.items():
        factor = opt._multipliers(index)[0]
        factor = 1.0 if factor is None else float(factor)
        last = float(held.last_lr) if held else 0.0
        if last and factor:
            now = optimizer.learning_rate
            # In double precision if it is still the same.
            return now if np.float32(now * factor) == np.float32(last) else last / factor
    return None
