"""The table of docs/porting.md: every name of MXNet that trains, and what to write in its place.

The tables of the page are made of it, and `python -m jaxmxopt port` takes its advice from it.
"""

import re
from typing import NamedTuple

__all__ = ["BY_NAME", "ROWS", "Row", "table"]


class Row(NamedTuple):
    """A row of the page.

    Attributes:
        names: in MXNet, without `mxnet.`; `def:X.name` is a method that a subclass of X defines.
        here: what to write.
        note: what changes, or what to know.
        stays: True if a line stays as it is once `import mxnet as mx` has become
            `import jaxmxopt as mx`.
    """

    names: tuple[str, ...]
    here: str
    note: str = ""
    stays: bool = False

    @property
    def advice(self) -> str:
        """Return what to write and what changes, as plain text."""
        text = f"{self.here}; {self.note}" if self.note else self.here
        return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def _row(prefix: str, names: str, here: str, note: str = "", *, stays: bool = False) -> Row:
    return Row(tuple(prefix + name for name in names.split()), here, note, stays)


def _same(prefix: str, names: str, note: str = "") -> Row:
    return _row(prefix, names, "the same", note, stays=True)


_IMPORTS = (
    _row(
        "",
        "mxnet",
        "`import jaxmxopt as mx`, or `from jaxmxopt import optimizer, lr_scheduler, Trainer`",
        "`mx.optimizer` and `mx.lr_scheduler` are there under their names; networks, arrays and "
        "data are JAX's",
    ),
    _row("", "horovod.mxnet", "nothing", "`jax.jit` adds up the gradients of sharded batches"),
    _row(
        "",
        "nd np npx",
        "`jax.numpy`",
        "and `jax.lax`, `jax.nn`; arrays do not change in place",
    ),
    _row("nd.", "array NDArray", "`jnp.asarray(x)`, `jax.Array`"),
    _row("nd.NDArray.", "__setitem__", "`x = ...`", "and return it: arrays do not change in place"),
    _row("nd.NDArray.", "asnumpy asscalar", "`np.asarray(x)`, `float(x)`"),
    _row("nd.NDArray.", "as_in_context", "`jax.device_put(x, device)`"),
    _row(
        "",
        "autograd autograd.record autograd.backward autograd.grad nd.NDArray.attach_grad "
        "nd.NDArray.backward",
        "`loss, grads = jax.value_and_grad(loss_of)(trainer.params, batch)`",
        "the loss is a function of the weights, and gradients are returned; a sum over the batch, "
        "as `backward` of a vector gives",
    ),
    _row(
        "nd.",
        "load save",
        "`jaxmxopt.mxnet_files.load_params(file)`, `save_params(file, arrays)`",
        "without MXNet",
    ),
    _row(
        "nd.sparse.",
        "row_sparse_array RowSparseNDArray",
        "`jaxmxopt.RowSparse(i, v, shape)`",
        "indices first; duplicates add up; `isinstance` in place of `stype`, `todense()` in place "
        'of `tostype("default")`',
    ),
    _row(
        "",
        "gluon gluon.Block gluon.HybridBlock gluon.SymbolBlock gluon.nn gluon.rnn gluon.loss sym "
        "rnn",
        "a function of a tree of weights",
        "or a module of flax or equinox: [train a network](train_a_network.md)",
    ),
    _row(
        "",
        "mxnet.*",
        "JAX or NumPy",
        "jaxmxopt has the optimizers, schedules, updater, Trainer, amp and files of MXNet",
    ),
)

_OPTIMIZERS = (
    _same(
        "optimizer.",
        "AdaBelief AdaDelta AdaGrad Adam AdamW Adamax DCASGD FTML Ftrl LAMB LANS LARS LBSGD NAG "
        "Nadam RMSProp SGD SGLD Signum Test ccSGD contrib contrib.GroupAdaGrad",
        "with the arguments and defaults of 1.9.1; those without a name go to the algorithm's own "
        "first, `SGD(0.9)` is a momentum",
    ),
    _row(
        "optimizer.",
        "optimizer",
        "`optimizer.Adam`",
        "one module: there is no `optimizer.optimizer`",
    ),
    _same("optimizer.", "create register Optimizer.create_optimizer Optimizer.register"),
    _same("optimizer.", "Optimizer.opt_registry Optimizer"),
    _row(
        "optimizer.Optimizer.",
        "update update_multi_precision",
        "`weight, state = opt.update(index, weight, grad, state)`",
        "returned: take both back",
    ),
    _row(
        "def:optimizer.Optimizer.",
        "update update_multi_precision",
        "`return weight, state`",
        "in place of writing into both; in a Trainer the index is the path of the weight; "
        "[lists of weights](#lists-of-weights) come where MXNet gives them",
    ),
    _row(
        "",
        "optimizer.Optimizer.step optimizer.Optimizer.fused_step def:optimizer.Optimizer.step "
        "def:optimizer.Optimizer.fused_step",
        "`update(self, index, weight, grad, state)`",
        "of one weight, which returns weight and state; every update is compiled",
    ),
    _row("optimizer.Optimizer.", "use_fused_step", "nothing", "every update is one compiled call"),
    _same(
        "optimizer.Optimizer.",
        "create_state create_state_multi_precision",
        "a NamedTuple, or `()`: [states](#states); in a class of one's own anything",
    ),
    _same(
        "optimizer.Optimizer.",
        "learning_rate set_learning_rate lr lr_scheduler wd rescale_grad clip_gradient "
        "begin_num_update num_update multi_precision",
        "read and set between two updates, without a recompile",
    ),
    _same(
        "optimizer.Optimizer.",
        "lr_mult wd_mult set_lr_mult set_wd_mult idx2name param_dict sym_info",
        "patterns too, such as `*_bias`",
    ),
    _row(
        "optimizer.Optimizer.",
        "set_lr_scale",
        "`opt.set_lr_mult({...})`",
        "`set_lr_scale` raises, as in MXNet",
    ),
    _same(
        "optimizer.Optimizer.",
        "_get_lr _get_lrs _get_wd _get_wds _update_count _set_current_context",
        "a subclass's own are called for every weight, also of SGD and LARS, where MXNet does not",
    ),
    _same(
        "optimizer.Optimizer.",
        "aggregate_num",
        "larger than MXNet's 4 (LAMB: 45), as a list is one compiled call; of a class with an "
        "`update` of its own it is MXNet's: [lists of weights](#lists-of-weights)",
    ),
    _row("optimizer.Optimizer.", "allow_np_array", "nothing", "there is one kind of array"),
    _same(
        "optimizer.",
        "get_updater Updater Updater.get_states Updater.set_states",
        "`get_states` gives data, not a pickle; MXNet's bytes are read too",
    ),
    _row(
        "optimizer.Updater.",
        "__call__",
        "`weight = updater(index, grad, weight)`",
        "returned; lists alike, in one compiled call",
    ),
    _same(
        "optimizer.Updater.",
        "optimizer states states_synced sync_state_context aggregate_updates",
    ),
)

_SCHEDULES = (
    _same(
        "lr_scheduler.",
        "FactorScheduler MultiFactorScheduler PolyScheduler CosineScheduler LRScheduler",
        "immutable, and independent of the order of calls; a subclass with an `__init__` of its "
        "own may change itself, and so may any other callable",
    ),
    _same(
        "lr_scheduler.LRScheduler.",
        "__call__ get_warmup_lr base_lr warmup_steps warmup_begin_lr warmup_mode",
    ),
    _same(
        "lr_scheduler.LRScheduler.",
        "warmup_final_lr",
        "in a subclass with an `__init__` of its own; in ours it is `base_lr`",
    ),
)

_TRAINER = (
    _row(
        "gluon.",
        "Trainer",
        '`jaxmxopt.Trainer(params, "sgd", {...})`',
        "`params` is a tree of arrays, which the trainer owns, in place of `collect_params()`; "
        '`kvstore="dist_sync"` and its like are refused, and so are `compression_params`: '
        "[many devices](many_devices.md)",
    ),
    _row(
        "gluon.Trainer.",
        "step",
        "`params = trainer.step(grads, batch_size)`",
        "gradients are given, weights returned",
    ),
    _row(
        "gluon.Trainer.",
        "update",
        "`params = trainer.update(grads, batch_size)`",
        "gradients are given, weights returned",
    ),
    _row(
        "gluon.Trainer.",
        "allreduce_grads",
        "`grads = trainer.allreduce_grads(grads)`, or nothing",
        "it does nothing: `jax.jit` adds up the gradients of sharded batches",
    ),
    _row(
        "",
        "gluon.Trainer._allreduce_grads def:gluon.Trainer._allreduce_grads",
        "`def _allreduce_grads(self, grads)`",
        "returns the gradients; `step` calls it, as gluon's does",
    ),
    _same("gluon.Trainer.", "learning_rate set_learning_rate optimizer _optimizer _scale"),
    _row("gluon.Trainer.", "_params", "the same, a list of arrays", "`trainer.params` is the tree"),
    _same(
        "gluon.Trainer.",
        "save_states load_states",
        "MXNet's files are read too: mind [the order](#files-of-gluon)",
    ),
)

_PARAMETERS = (
    _row(
        "gluon.Parameter.",
        "lr_mult wd_mult",
        '`trainer.optimizer.set_lr_mult({"dense0/bias": 0.1})`, `set_wd_mult`',
        "by path or pattern; set again after `load_states` of gluon's file: "
        "[multipliers](#multipliers-of-parameters)",
    ),
    _row(
        "gluon.ParameterDict.",
        "setattr",
        '`trainer.optimizer.set_lr_mult({"*/bias": 0.1})` for `"lr_mult"`, `set_wd_mult` for '
        '`"wd_mult"`',
        '`"grad_req"` and others: see their rows',
    ),
    _row(
        "gluon.Parameter.",
        "grad_req",
        '`"null"`: leave the weight out of `params`; `"add"`: add up what is returned, '
        "`jax.tree.map(jnp.add, added, grads)`",
        "or let `jaxmxopt.Accumulate` add up",
    ),
    _row(
        "",
        "gluon.Parameter.zero_grad gluon.ParameterDict.zero_grad",
        "nothing; `added = jax.tree.map(jnp.zeros_like, params)` where gradients were added up",
    ),
    _row(
        "gluon.Parameter.",
        "grad list_grad",
        "`grads`",
        "the tree that `jax.grad` returns",
    ),
    _row(
        "gluon.Parameter.",
        "data list_data set_data",
        "`trainer.params`",
        "read anew after every step; a whole tree can be set",
    ),
    _row(
        "gluon.Parameter.",
        "grad_stype row_sparse_data list_row_sparse_data",
        "`jaxmxopt.value_and_row_grad(loss, tables=...)`",
        "in place of `sparse_grad=True`: [embeddings](embeddings.md)",
    ),
    _row(
        "",
        "gluon.Parameter gluon.ParameterDict gluon.Constant",
        "a weight is an array, and a collection of weights a dict",
    ),
    _row(
        "gluon.Parameter.",
        "cast dtype initialize list_ctx reset_ctx reset_device list_device shape var name",
        "`weight.astype`, `weight.shape`, `jax.device_put(weight, device)`",
        "of the array",
    ),
    _row(
        "gluon.ParameterDict.",
        "get get_constant initialize items keys list_ctx prefix reset_ctx update values",
        "those of a dict",
    ),
    _row(
        "gluon.ParameterDict.",
        "load load_dict save",
        "`jaxmxopt.mxnet_files.load_params(file)`, `save_params(file, params)`",
    ),
    _row(
        "gluon.utils.",
        "clip_global_norm",
        "`grads, norm = jaxmxopt.amp.clip_global_norm(grads, max_norm)`",
        "returned; gradients that are not finite come back as they are",
    ),
    _row(
        "gluon.utils.",
        "split_and_load split_data",
        "`jax.device_put(batch, sharding)`",
        "[many devices](many_devices.md)",
    ),
)

_KVSTORE = (
    _row(
        "kvstore.",
        "create KVStore KVStoreBase KVStoreServer BytePS Horovod",
        "nothing",
        "`jax.jit` adds up the gradients of sharded batches: [many devices](many_devices.md)",
    ),
    _row(
        "kvstore.KVStore.",
        "set_optimizer",
        "`updater = mx.optimizer.get_updater(opt)`",
        "and `weight = updater(index, grad, weight)` in place of push and pull",
    ),
    _row(
        "kvstore.KVStore.",
        "init push pull pushpull broadcast row_sparse_pull",
        "nothing",
        "weights are arrays that the program holds",
    ),
    _row("kvstore.KVStore.", "rank num_workers", "`jax.process_index()`, `jax.process_count()`"),
    _row(
        "kvstore.KVStore.",
        "set_gradient_compression",
        "cast the gradients before they are added up, or leave it out",
    ),
    _row(
        "kvstore.KVStore.",
        "save_optimizer_states load_optimizer_states",
        "`updater.get_states()`, `updater.set_states(data)`",
    ),
    _row("kvstore.KVStore.", "OPTIMIZER is_capable kv_registry register type", "nothing"),
)

_MODULE = (
    _row(
        "mod.",
        "Module",
        "a function of a tree of weights, and an updater",
        "or a Trainer",
    ),
    _row(
        "mod.Module.",
        "init_optimizer",
        "`opt = mx.optimizer.create(name, rescale_grad=1 / batch, param_idx2name=names, ...)`, "
        "`updater = mx.optimizer.get_updater(opt)`",
        "Module sets `rescale_grad` and the names itself, by which biases do not decay",
    ),
    _row(
        "mod.Module.",
        "update",
        "`weights = updater(indices, grads, weights)`",
        "in one compiled call",
    ),
    _row(
        "mod.Module.",
        "save_optimizer_states load_optimizer_states",
        "`updater.get_states()`, `updater.set_states(data)`",
        "MXNet's files are read",
    ),
    _row("mod.Module.", "borrow_optimizer", "share the updater"),
    _row(
        "mod.Module.",
        "get_params set_params init_params load_params save_params",
        "the dict of weights",
        "`jaxmxopt.mxnet_files.load_params(file)` reads MXNet's",
    ),
    _row(
        "mod.Module.",
        "backward forward forward_backward fit get_input_grads get_outputs",
        "`loss, grads = jax.value_and_grad(loss_of)(weights, batch)`",
        "in a loop of one's own",
    ),
    _row(
        "mod.Module.",
        "load save_checkpoint",
        "`jaxmxopt.checkpoint.save(file, ...)`",
        "[files](files.md)",
    ),
    _row(
        "mod.Module.",
        "bind data_names data_shapes get_states install_monitor iter_predict label_names "
        "label_shapes output_names output_shapes predict prepare reshape score set_states symbol "
        "update_metric",
        "nothing",
        "a function takes any batch",
    ),
)

_AMP = (
    _row(
        "contrib.",
        "amp amp.init amp.convert_hybrid_block amp.convert_model amp.convert_symbol "
        "amp.list_conditional_fp32_ops amp.list_fp32_ops amp.list_loss_output_functions "
        "amp.list_lp16_fp32_ops amp.list_lp16_ops amp.list_lp16_use_fp32_params "
        "amp.list_widest_type_cast",
        "cast weights and inputs where the network is to compute in half precision",
        "and give the optimizer `multi_precision=True`: [mixed precision](mixed_precision.md)",
    ),
    _row(
        "contrib.amp.",
        "init_trainer",
        "`jaxmxopt.Trainer(..., loss_scaler=jaxmxopt.amp.DynamicLossScaler())`",
        "it skips steps whose gradients are not finite",
    ),
    _row(
        "contrib.amp.",
        "scale_loss",
        "multiply the loss by `trainer.loss_scale` before it is differentiated",
        "`step` divides the gradients again",
    ),
    _row(
        "contrib.amp.",
        "unscale",
        "`grads = scaler.unscale(grads, state)`",
        "for a `jaxmxopt.amp.DynamicLossScaler` beside a definition",
    ),
    _row(
        "contrib.amp.",
        "loss_scaler loss_scaler.LossScaler loss_scaler.LossScaler.has_overflow "
        "loss_scaler.LossScaler.loss_scale",
        "`jaxmxopt.amp.DynamicLossScaler`, `jaxmxopt.amp.all_finite(grads)`",
        "with MXNet's constants",
    ),
)

_WRITTEN = (
    "the same name and arguments; returns the new weight, then the states; there is no `out`: "
    "[operators](operators.md)"
)
_OPERATORS = (
    _row(
        "nd.",
        "sgd_update sgd_mom_update mp_sgd_update mp_sgd_mom_update sparse.sgd_update "
        "sparse.sgd_mom_update nag_mom_update mp_nag_mom_update signsgd_update signum_update",
        "`weight, mom = jaxmxopt.ops.sgd_mom_update(weight, grad, mom, ...)`",
        _WRITTEN,
    ),
    _row(
        "nd.",
        "multi_sgd_update multi_sgd_mom_update multi_mp_sgd_update multi_mp_sgd_mom_update "
        "preloaded_multi_sgd_update preloaded_multi_sgd_mom_update "
        "preloaded_multi_mp_sgd_update preloaded_multi_mp_sgd_mom_update",
        "`jaxmxopt.ops.multi_sgd_update(...)`",
        _WRITTEN,
    ),
    _row(
        "nd.",
        "adam_update sparse.adam_update contrib.adamw_update contrib.mp_adamw_update "
        "contrib.multi_adamw_update contrib.multi_mp_adamw_update contrib.adabelief_update "
        "contrib.mp_adabelief_update contrib.multi_adabelief_update "
        "contrib.multi_mp_adabelief_update",
        "`weight, mean, var = jaxmxopt.ops.adam_update(weight, grad, mean, var, ...)`",
        _WRITTEN,
    ),
    _row(
        "nd.",
        "lamb_update_phase1 lamb_update_phase2 mp_lamb_update_phase1 mp_lamb_update_phase2 "
        "contrib.multi_lamb_update contrib.multi_mp_lamb_update contrib.multi_lans_update "
        "contrib.multi_mp_lans_update",
        "`jaxmxopt.ops.lamb_update_phase1(...)`",
        _WRITTEN,
    ),
    _row(
        "nd.",
        "ftml_update ftrl_update sparse.ftrl_update rmsprop_update rmspropalex_update "
        "sparse.adagrad_update contrib.group_adagrad_update",
        "`jaxmxopt.ops.ftrl_update(...)`",
        _WRITTEN,
    ),
    _row(
        "nd.",
        "multi_sum_sq multi_lars all_finite multi_all_finite reset_arrays",
        "`jaxmxopt.ops.multi_sum_sq(...)`",
        "the same name and arguments; the result is returned",
    ),
)

ROWS: dict[str, tuple[Row, ...]] = {
    "imports": _IMPORTS,
    "optimizers": _OPTIMIZERS,
    "schedules": _SCHEDULES,
    "trainer": _TRAINER,
    "parameters": _PARAMETERS,
    "operators": _OPERATORS,
    "kvstore": _KVSTORE,
    "module": _MODULE,
    "amp": _AMP,
}


def _own(name: str, row: Row) -> Row:
    """Return the row of one name; of an operator it says the operator itself."""
    if row.note != _WRITTEN:
        return row
    return row._replace(here=f"`jaxmxopt.ops.{name.rpartition('.')[2]}(...)`")


BY_NAME = {name: _own(name, row) for rows in ROWS.values() for row in rows for name in row.names}


def table(section: str) -> str:
    """Return a section of `ROWS` as the page has it."""
    lines = ["| MXNet | here | what changes |", "|---|---|---|"]
    for row in ROWS[section]:
        names = ", ".join(map(_shown, row.names, ("", *row.names)))
        lines.append(f"| {names} | {row.here} | {row.note} |".replace("|  |", "| |"))
    return "\n".join(lines)


def _shown(name: str, before: str) -> str:
    """Return a name as the page has it, short where it stands in what the name before stands in."""
    kind, _, last = name.rpartition(".")
    again = bool(kind) and before.rpartition(".")[0] == kind
    if name.startswith("def:"):
        where = "" if again else f" in a subclass of `{kind.removeprefix('def:')}`"
        return f"`def {last}`{where}"
    return f"`.{last}`" if again else f"`{name}`"
