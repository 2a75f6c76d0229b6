"""Records the names of MXNet that docs/porting.md is to have rows for.

    python tests/reference/record_names.py

Public names of its optimizers, schedules, Trainer, parameters, updater, key-value store, Module,
amp and update operators, in 1.9.1 and in 2.0.0b1. Beside methods, the attributes of objects.
"""

from __future__ import annotations

import json
import os
import subprocess

from record import DATA, _python

WORKER = """
import inspect, json, sys, warnings
warnings.simplefilter("ignore")
import mxnet as mx
from mxnet import gluon, kvstore, lr_scheduler, optimizer
from mxnet.gluon import Trainer
names = set()

def public(name, thing, also=()):
    for member in dir(thing):
        if not member.startswith("_") or member in also:
            names.add(f"{name}.{member}")

def attributes(name, thing):
    names.update(f"{name}.{member}" for member in vars(thing) if not member.startswith("_"))

def module(name, thing, package):
    for member, value in vars(thing).items():
        inside = (getattr(value, "__module__", "") or "").startswith(package)
        if not member.startswith("_") and inside and not inspect.ismodule(value):
            names.add(f"{name}.{member}")

module("optimizer", optimizer, "mxnet.optimizer")
module("optimizer.contrib", optimizer.contrib, "mxnet.optimizer.contrib")
module("lr_scheduler", lr_scheduler, "mxnet.lr_scheduler")
module("kvstore", kvstore, "mxnet.kvstore")
counts = ("_update_count", "_get_lr", "_get_lrs", "_get_wd", "_get_wds", "_set_current_context")
public("optimizer.Optimizer", optimizer.Optimizer, counts)
sgd = optimizer.SGD(learning_rate=0.1)
base = set(vars(sgd)) - {"momentum", "lazy_update"}
names.update(f"optimizer.Optimizer.{name}" for name in base if not name.startswith("_"))
public("optimizer.Updater", optimizer.Updater, ("__call__",))
attributes("optimizer.Updater", optimizer.get_updater(sgd))
public("lr_scheduler.LRScheduler", lr_scheduler.LRScheduler, ("__call__",))
attributes("lr_scheduler.LRScheduler", lr_scheduler.LRScheduler())
public("gluon.Trainer", Trainer, ("_allreduce_grads",))
names.update(f"gluon.Trainer.{name}" for name in ("_scale", "_params", "_optimizer"))
public("gluon.Parameter", gluon.Parameter)
names.update(f"gluon.Parameter.{name}" for name in ("lr_mult", "wd_mult", "grad_stype"))
if hasattr(gluon, "ParameterDict"):
    public("gluon.ParameterDict", gluon.ParameterDict)
public("kvstore.KVStore", kvstore.KVStore)
for name in ("clip_global_norm", "split_and_load", "split_data"):
    names.add(f"gluon.utils.{name}")
if hasattr(mx, "mod"):
    public("mod.Module", mx.mod.Module)
    from mxnet.contrib import amp
    path = "contrib.amp"
else:
    from mxnet import amp
    path = "contrib.amp"
module(path, amp, "mxnet")
public(path + ".loss_scaler.LossScaler", amp.loss_scaler.LossScaler)
for path, where in (("nd", mx.nd), ("nd.contrib", mx.nd.contrib), ("nd.sparse", mx.nd.sparse)):
    helpers = ("multi_sum_sq", "multi_lars", "all_finite", "multi_all_finite", "reset_arrays")
    for name in dir(where):
        if not name.startswith("_") and ("_update" in name or name in helpers):
            names.add(f"{path}.{name}")
json.dump(sorted(names), sys.stdout)
"""


def main() -> None:
    """Writes data/mxnet_names.json."""
    found = {}
    for version in ("1.9.1", "2.0.0b1"):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [_python(version), "-W", "ignore", "-c", WORKER]
        done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
        found[version] = json.loads(done.stdout.splitlines()[-1])
    (DATA / "mxnet_names.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
