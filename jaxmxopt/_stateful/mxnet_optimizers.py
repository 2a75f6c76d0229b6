"""Optimizers and their states from MXNet's files, and into them."""

import bisect
import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmxopt._algorithms import DCASGD, LARS, LBSGD, BERTAdam, Nadam
from jaxmxopt._core import schedules as lr_scheduler
from jaxmxopt._core.algorithm import OptimizerDef
from jaxmxopt._core.sparse import RowSparse
from jaxmxopt._core.state import State
from jaxmxopt._files.arrays import free_array
from jaxmxopt._mxnet.ndarray import CSR
from jaxmxopt._mxnet.pickle import write_pickle
from jaxmxopt._mxnet.record import MXNetRecord
from jaxmxopt._mxnet.slots import nested, slots_of
from jaxmxopt._mxnet.states import StatesFile
from jaxmxopt._stateful.classes import DEFINITIONS
from jaxmxopt._stateful.conventions import AGGREGATED
from jaxmxopt._stateful.mxnet_states import slots_and_master
from jaxmxopt._stateful.optimizer import Optimizer

__all__ = [
    "attribute_names",
    "definition_of",
    "dumped",
    "owned",
    "restored",
    "schedule_of",
    "schedule_record",
    "states_of",
]

_MODULE = "mxnet.lr_scheduler"
# MXNet's attributes, and which argument each is where the names differ.
_ARGUMENTS = {
    "FactorScheduler": {"step": "step", "factor": "factor", "stop_factor_lr": "stop_factor_lr"},
    "MultiFactorScheduler": {"step": "step", "factor": "factor"},
    "PolyScheduler": {"max_update": "max_update", "power": "pwr", "final_lr": "final_lr"},
    "CosineScheduler": {"max_update": "max_update", "final_lr": "final_lr"},
}
# How far it is.
_PROGRESS = {
    "FactorScheduler": ("count",),
    "MultiFactorScheduler": ("cur_step_ind",),
    "PolyScheduler": ("base_lr_orig",),
    "CosineScheduler": ("base_lr_orig",),
}
_WARMUP = ("warmup_steps", "warmup_begin_lr", "warmup_mode")


def schedule_of(record: MXNetRecord) -> lr_scheduler.LRScheduler:
    """Make the schedule that goes on as a recorded one would.

    Raises:
        ValueError: it is not one of MXNet's, or lacks an attribute.
    """
    if record.name not in _ARGUMENTS or record.module != _MODULE:
        raise ValueError(
            f"lr_scheduler must be one of MXNet's own, got {record.module}.{record.name}: give "
            "one that does the same."
        )
    attributes = record.attributes
    names = {**_ARGUMENTS[record.name], **{name: name for name in _WARMUP}}
    needed = (*names, *_PROGRESS[record.name], "base_lr", "warmup_final_lr")
    missing = [name for name in needed if name not in attributes]
    if missing:
        raise ValueError(f"{record.name} must have {missing[0]}.")
    arguments = {argument: attributes[name] for name, argument in names.items()}
    try:
        arguments["base_lr"] = _first_rate(record.name, attributes)
        return getattr(lr_scheduler, record.name)(**arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{record.name} cannot be made again: {error}") from None


def _first_rate(name: str, attributes: dict[str, Any]) -> float:
    """Return the rate that a schedule began with."""
    first, now = attributes["warmup_final_lr"], attributes["base_lr"]
    if name in ("PolyScheduler", "CosineScheduler"):
        return attributes["base_lr_orig"]
    done = attributes["count"] // attributes["step"] if name == "FactorScheduler" else None
    drops = attributes["cur_step_ind"] if done is None else done
    factor, floor = attributes["factor"] ** drops, attributes.get("stop_factor_lr", 0.0)
    expected = max(first * factor, floor) if drops else first
    if abs(now - expected) <= 1e-9 * abs(expected):
        return first
    # Another rate was given to the optimizer.
    return now / factor if factor > 0 and now != floor else now


def schedule_record(schedule: Any, num_update: int) -> MXNetRecord | None:
    """Record a schedule as MXNet's would be after `num_update` updates.

    Raises:
        ValueError: MXNet has no such schedule.
    """
    if schedule is None:
        return None
    name = type(schedule).__name__
    if name not in _ARGUMENTS or type(schedule) is not getattr(lr_scheduler, name):
        raise ValueError(f"lr_scheduler must be one that MXNet has, got {schedule!r:.200}.")
    base, warm = float(schedule.base_lr), num_update >= schedule.warmup_steps
    attributes = {name: getattr(schedule, name) for name in _WARMUP}
    attributes |= {at: getattr(schedule, own) for at, own in _ARGUMENTS[name].items()}
    attributes["warmup_final_lr"] = base
    attributes["base_lr"] = float(schedule(num_update)) if warm else base
    if name == "FactorScheduler":
        attributes["count"] = schedule.step * max(0, (num_update - 1) // schedule.step) * warm
    elif name == "MultiFactorScheduler":
        drops = bisect.bisect_left(schedule.step, num_update) * warm
        attributes |= {"step": list(schedule.step), "cur_step_ind": drops}
        attributes["count"] = schedule.step[drops - 1] if drops else 0
    else:
        attributes["base_lr_orig"] = base
        attributes["max_steps"] = schedule.max_update - schedule.warmup_steps
    return MXNetRecord(_MODULE, name, attributes)


# Under which name MXNet keeps an argument, where it is another.
_RENAMED: dict[tuple[str, int], dict[str, str]] = {
    ("AdaGrad", 1): {"eps": "float_stable_eps"},
    ("GroupAdaGrad", 1): {"eps": "float_stable_eps"},
    ("AdaGrad", 2): {"eps": "epsilon"},
    ("GroupAdaGrad", 2): {"eps": "epsilon"},
    ("LARS", 2): {"eps": "epsilon"},
    ("RMSProp", 2): {"gamma1": "rho", "gamma2": "momentum"},
}
# Fields that no file has under any name.
_OURS = {
    *("learning_rate", "lr_scheduler", "param_idx2name", "lr_mult", "wd_mult"),
    *("seed", "begin_epoch"),
}
_LARGEST_COUNT = 2**31 - 1
# Where an optimizer is defined that MXNet itself does not have.
_PACKAGES: dict[type, str] = {BERTAdam: "gluonnlp"}


class Counts(NamedTuple):
    """The progress of an optimizer.

    Attributes:
        num_update: the largest count.
        device: whose counts were raised last.
        by_device: counts by index, by device.
    """

    num_update: int
    device: int
    by_device: dict[int, dict[Hashable, int]]

    def of(self, index: Hashable, begin: int) -> int:
        """Return the count of one index: the largest of any device."""
        return max((counts.get(index, begin) for counts in self.by_device.values()), default=begin)


def algorithm_of(record: MXNetRecord) -> type[OptimizerDef] | None:
    """Return the class of a recorded optimizer's definition, None if it is somebody's own."""
    found = DEFINITIONS.get(record.name)
    package = record.module.split(".")[0]
    return found if found and package == _PACKAGES.get(found, "mxnet") else None


def attribute_names(kind: type[OptimizerDef], version: int) -> dict[str, str]:
    """Return the attributes in which MXNet keeps the fields of an algorithm, by field."""
    renamed = _RENAMED.get((kind.__name__, version), {})
    return {name: renamed.get(name, name) for name in kind._described if name not in _OURS}


def definition_of(record: MXNetRecord, lr_scheduler: Any = None) -> OptimizerDef:
    """Make the definition of a recorded optimizer.

    Args:
        record: of an optimizer of MXNet's own.
        lr_scheduler: in place of the recorded one.

    Raises:
        ValueError: it is not one of MXNet's own, or a hyperparameter is one that it cannot have.
    """
    kind = algorithm_of(record)
    if kind is None:
        raise ValueError(
            f"the optimizer must be one of MXNet's own, got {record.module}.{record.name}."
        )
    recorded = record.attributes.get("lr_scheduler")
    if lr_scheduler is None and recorded is not None:
        lr_scheduler = schedule_of(recorded)
    try:
        return kind(**_arguments(kind, record, lr_scheduler))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{record.name} cannot be made again: {error}") from None


def _arguments(kind: type[OptimizerDef], record: MXNetRecord, lr_scheduler: Any) -> dict[str, Any]:
    """Return the arguments of a definition, as far as they are recorded."""
    version, attributes = record.version or 1, record.attributes
    arguments: dict[str, Any] = {
        "lr_scheduler": lr_scheduler,
        "param_idx2name": attributes.get("idx2name") or None,
        "lr_mult": attributes.get("lr_mult") or None,
        "wd_mult": _wd_mult(kind, attributes, version) or None,
    }
    if lr_scheduler is None:
        arguments["learning_rate"] = attributes.get("lr")
    for field, name in attribute_names(kind, version).items():
        if name in attributes:
            value = attributes[name]
            arguments[field] = bool(value) if kind._described[field].kind is bool else value
    if kind is LARS and version == 2:
        arguments["momentum_correction"] = False
    if kind is LBSGD:
        each = attributes.get("updates_per_epoch") or 1
        arguments["begin_epoch"] = int(attributes.get("init_updates") or 0) // int(each)
    return arguments


def _wd_mult(kind: type[OptimizerDef], attributes: dict[str, Any], version: int) -> Any:
    """Return factors of the decay; version 2 decays weights that version 1 leaves out."""
    given = dict(attributes.get("wd_mult") or {})
    if version == 2:
        for name in (attributes.get("idx2name") or {}).values():
            if not name.endswith(kind.names.decay):
                given.setdefault(name, 1.0)
    return given


def counts_of(record: MXNetRecord) -> Counts:
    """Return how far a recorded optimizer was.

    Raises:
        ValueError: a count is not one.
    """
    attributes = record.attributes
    current = attributes.get("_index_update_count") or {}
    by_device = attributes.get("_all_index_update_counts") or {0: current}
    for count in (attributes["num_update"], *(n for c in by_device.values() for n in c.values())):
        if type(count) is not int or not 0 <= count <= _LARGEST_COUNT:
            raise ValueError(f"counts must be integers in [0, {_LARGEST_COUNT}], got {count!r}.")
    device = next((device for device, counts in by_device.items() if counts == current), None)
    return Counts(attributes["num_update"], 0 if device is None else device, by_device)


def kept_of(record: MXNetRecord | None, opt: OptimizerDef, index: Hashable) -> dict[str, Any]:
    """Return the slots of one weight that MXNet keeps in the optimizer, if recorded."""
    if record is None:
        return {}
    attributes = record.attributes
    if isinstance(opt, Nadam):
        return {"m_schedule": attributes.get("m_schedule")}
    if isinstance(opt, LARS) and attributes.get("cur_lr") is not None:
        factor = opt._multipliers(index)[0]
        return {"last_lr": attributes["cur_lr"] * (1.0 if factor is None else factor)}
    if isinstance(opt, LBSGD):
        kept = dict((attributes.get("cumgrads") or {}).get(index, {}))
        # A number where nothing has been added up yet.
        if isinstance(kept.get("cum_grad"), (int, float)):
            del kept["cum_grad"]
        return kept
    return {}


def owned(tree: Any) -> Any:
    """Copy the arrays of a tree; those of 64 bits stay NumPy's where JAX has no such types."""
    if isinstance(tree, MXNetRecord):
        return tree._replace(attributes=owned(tree.attributes))
    if isinstance(tree, dict):
        return {key: owned(value) for key, value in tree.items()}
    if isinstance(tree, RowSparse):
        indices, values = _narrowed(tree.indices, tree.shape[0]), owned(tree.values)
        if jax.dtypes.canonicalize_dtype(indices.dtype) == indices.dtype:
            return RowSparse._unchecked(indices, values, tree.shape)
        return RowSparse.tree_unflatten((tree.shape, indices.dtype.name), (indices.copy(), values))
    if isinstance(tree, CSR):
        indices = _narrowed(tree.indices, tree.shape[1])
        indptr = _narrowed(tree.indptr, len(tree.data) + 1)
        return CSR(_owned_array(tree.data), _owned_array(indices), _owned_array(indptr), tree.shape)
    if isinstance(tree, (list, tuple)):
        return type(tree)(map(owned, tree))
    return _owned_array(tree) if isinstance(tree, np.ndarray) else tree


def _narrowed(indices: Any, end: int) -> Any:
    """Return indices below `end` in JAX's own dtype, where it has room for them."""
    kind = jax.dtypes.canonicalize_dtype(np.int64)
    return indices.astype(kind) if end <= np.iinfo(kind).max else indices


def _owned_array(array: np.ndarray) -> Any:
    # Copied here, out of the bytes of the file: jnp.array would compile a copy for every shape.
    return free_array(array.copy(), None)


def states_of(
    file: StatesFile, opt: OptimizerDef, num_update: int | None, weights: Mapping[Hashable, Any]
) -> dict[Hashable, State]:
    """Return the states of weights, each with its count, as `OptimizerDef.update` takes them.

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
    """Return slots, or a `MasterState`, of every weight that has something to go on from."""
    found = {
        index: slots_of(
            opt, index, state, file.version, kept_of(file.optimizer, opt, index), weights.get(index)
        )
        for index, state in file.states.items()
    }
    return {index: state for index, state in found.items() if state is not None}


def restored(file: StatesFile, optimizer: Optimizer) -> tuple[Optimizer, dict[Any, Any]]:
    """Return what an Updater with this optimizer goes on with: an optimizer and states by index.

    As in MXNet the optimizer of the file takes the place of the Updater's, if there is one. One of
    somebody's own class cannot be made from a file: the Updater's, if it is of that class,
    takes over what the file says.

    Args:
        file: what was read.
        optimizer: of the Updater. It is not changed; where the file has none, a copy goes on.

    Raises:
        ValueError: the states are not of this algorithm, the recorded optimizer is unknown, or
            that of the Updater is a wrapper.
    """
    record = file.optimizer
    if not optimizer._is_algorithm:
        raise ValueError(
            "a file of MXNet must be loaded into an optimizer without wrappers, which it would "
            f"replace, got {optimizer.definition!r:.200}; mxnet_files.to_states makes states to "
            "put inside one."
        )
    made = _copy(optimizer) if record is None else _taken_over(record, optimizer)
    if made._own_update:
        return made, owned(file.states)
    return made, _slots(file, made.definition, {})


def _copy(optimizer: Optimizer) -> Optimizer:
    made = copy.copy(optimizer)
    made.param_dict = optimizer.param_dict
    return made


def _taken_over(record: MXNetRecord, optimizer: Optimizer) -> Optimizer:
    """Return an optimizer that is as far as a recorded one was."""
    schedule = _schedule(record.attributes.get("lr_scheduler"), optimizer)
    wd_mult = record.attributes.get("wd_mult")
    if algorithm_of(record) is not None:
        definition = definition_of(record, schedule)
        wd_mult = definition.wd_mult
        if type(optimizer._definition) is type(definition):
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
    made._count_from(counts.num_update)
    made._all_index_update_counts = {
        device: dict(by_index) for device, by_index in counts.by_device.items()
    }
    made._set_current_context(counts.device)
    return made


def _schedule(record: MXNetRecord | None, optimizer: Optimizer) -> Any:
    """Return the schedule to go on with: MXNet's own, or the optimizer's of the same class."""
    if record is None:
        return None
    given = optimizer.lr_scheduler
    if record.module.split(".")[0] != "mxnet" and type(given).__name__ == record.name:
        return given
    return schedule_of(record)


def _set_numbers(made: Optimizer, record: MXNetRecord, schedule: Any) -> None:
    """Set the numbers that an optimizer of somebody's own class has."""
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


_ONLY_IN_2 = ("AdamW", "AdaBelief", "LANS")
_LAZY = ("SGD", "ccSGD", "LARS", "Adam")
# Where a class is defined that is not among MXNet's most.
_MODULES = {
    "GroupAdaGrad": "mxnet.optimizer.contrib",
    "BERTAdam": "gluonnlp.optimizer.bert_adam",
}


def dumped(
    optimizer: Optimizer,
    states: Mapping[Any, Any],
    dump_optimizer: bool,
    names: Sequence[str] | None = None,
) -> bytes:
    """Return the bytes of a `.states` file.

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
    own = optimizer._own_update or not optimizer._is_algorithm
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
    """Return the number of every weight in gluon, by its path."""
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
    """Return a table by index as MXNet has it."""
    named = {keys.get(index, index): value for index, value in table.items()}
    return {int(i) if isinstance(i, np.integer) else i: value for i, value in named.items()}


def _record(
    optimizer: Optimizer, opt: OptimizerDef, states: Mapping[Any, Any], keys: Mapping[Any, Any]
) -> MXNetRecord:
    """Return the optimizer as MXNet would pickle it."""
    name = type(opt).__name__
    if name in _ONLY_IN_2 or DEFINITIONS.get(name) is not type(opt):
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
        "aggregate_num": AGGREGATED.get(type(opt), 0),
        "idx2name": _renamed(optimizer.idx2name, keys),
        "sym_info": optimizer.sym_info,
        "allow_np_array": False,
    }
    for field, attribute in attribute_names(type(opt), 1).items():
        if field != "lazy_update" or name in _LAZY:
            attributes.setdefault(attribute, getattr(opt, field))
    slots = {index: slots_and_master(state)[0] for index, state in states.items()}
    attributes |= _kept(optimizer, opt, slots, keys)
    return MXNetRecord(_MODULES.get(name, "mxnet.optimizer.optimizer"), name, attributes)


def _kept(
    optimizer: Optimizer, opt: OptimizerDef, slots: Mapping[Any, Any], keys: Mapping[Any, Any]
) -> dict[str, Any]:
    """Return attributes beyond the arguments, some of which are slots with us."""
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
    """Return the learning rate of the last update, before multipliers; None before the first."""
    for index, held in slots.items():
        factor = opt._multipliers(index)[0]
        factor = 1.0 if factor is None else float(factor)
        last = float(held.last_lr) if held else 0.0
        if last and factor:
            now = optimizer.learning_rate
            # In double precision if it is still the same.
            return now if np.float32(now * factor) == np.float32(last) else last / factor
    return None
