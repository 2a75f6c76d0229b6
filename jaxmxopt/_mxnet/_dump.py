"""Optimizers and states of ours as a `.states` file of MXNet 1."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import jaxmxopt
from jaxmxopt._compiled import slots_and_master
from jaxmxopt._definition import OptimizerDef
from jaxmxopt._mxnet._optimizers import attribute_names
from jaxmxopt._mxnet._pickle_write import write_pickle
from jaxmxopt._mxnet._record import MXNetRecord
from jaxmxopt._mxnet._schedules import schedule_record
from jaxmxopt._mxnet._slots import nested
from jaxmxopt._optimizer import Optimizer

__all__ = ["dumped"]

_ONLY_IN_2 = ("AdamW", "AdaBelief", "LANS")
_LAZY = ("SGD", "ccSGD", "LARS", "Adam")
# How many weights one call of MXNet's takes: its own defaults.
_AGGREGATED = {"SGD": 4, "ccSGD": 4, "LARS": 4, "LAMB": 45}


def dumped(optimizer: Optimizer, states: Mapping[Any, Any], dump_optimizer: bool) -> bytes:
    """Returns the bytes of a `.states` file.

    Args:
        optimizer: that the states are of.
        states: by index, as an Updater has them.
        dump_optimizer: write the optimizer too: MXNet then goes on with the counts.

    Raises:
        ValueError: MXNet 1 has no such optimizer, schedule or array.
        TypeError: an index is neither an integer nor a string.
    """
    own = optimizer._has_own_update()
    if own and dump_optimizer:
        raise ValueError(
            "the optimizer must be one that MXNet has, "
            f"got {type(optimizer).__name__}; leave it out with dump_optimizer=False."
        )
    opt = None if own else optimizer.definition
    written = {
        _index(index): state if opt is None else nested(opt, state)
        for index, state in states.items()
    }
    if not dump_optimizer or opt is None:
        return write_pickle(written)
    return write_pickle((written, _record(optimizer, opt, states)))


def _index(index: Any) -> Any:
    return int(index) if isinstance(index, np.integer) else index


def _record(optimizer: Optimizer, opt: OptimizerDef, states: Mapping[Any, Any]) -> MXNetRecord:
    """The optimizer as MXNet would pickle it."""
    name = type(opt).__name__
    if name in _ONLY_IN_2 or getattr(jaxmxopt, name, None) is not type(opt):
        raise ValueError(f"the optimizer must be one that MXNet 1.9.1 has, got {name}.")
    counts = {
        device: {_index(index): count for index, count in by_index.items()}
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
        "lr_mult": dict(optimizer.lr_mult),
        "wd_mult": dict(optimizer.wd_mult),
        "begin_num_update": optimizer.begin_num_update,
        "num_update": optimizer.num_update,
        "_all_index_update_counts": counts,
        "_index_update_count": counts[current],
        "clip_gradient": optimizer.clip_gradient,
        "multi_precision": optimizer.multi_precision,
        "aggregate_num": _AGGREGATED.get(name, 0),
        "idx2name": dict(optimizer.idx2name),
        "sym_info": optimizer.sym_info,
        "allow_np_array": False,
    }
    for field, attribute in attribute_names(type(opt), 1).items():
        if field != "lazy_update" or name in _LAZY:
            attributes.setdefault(attribute, getattr(opt, field))
    slots = {index: slots_and_master(state)[0] for index, state in states.items()}
    attributes |= _kept(optimizer, opt, slots)
    module = "contrib" if name == "GroupAdaGrad" else "optimizer"
    return MXNetRecord(f"mxnet.optimizer.{module}", name, attributes)


def _kept(optimizer: Optimizer, opt: OptimizerDef, slots: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes beyond the arguments, some of which are slots with us."""
    if isinstance(opt, jaxmxopt.Nadam):
        # One number for all weights in MXNet.
        return {"m_schedule": min((float(s.m_schedule) for s in slots.values()), default=1.0)}
    if isinstance(opt, jaxmxopt.DCASGD):
        return {"weight_previous": {}}
    if isinstance(opt, jaxmxopt.LARS):
        last = _last_rate(optimizer, opt, slots)
        return {"skip": 0, "last_lr": last, "cur_lr": last}
    if isinstance(opt, jaxmxopt.LBSGD):
        cumulated = {
            _index(index): {"cum_grad": held.cum_grad, "num_cums": int(held.num_cums)}
            for index, held in slots.items()
        }
        first = opt.begin_epoch * opt.updates_per_epoch
        inner = {"lbmult": 1, "adaptive": False, "admult": 1, "init_updates": first}
        return {"cumgrads": cumulated, **inner}
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
