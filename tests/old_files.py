"""Files in the format of version 0.1.0: how each was made, and how training goes on from it.

The files in `files_of_0_1_0` were written by the code of that version, by `write` below;
`expected.json` has the weights of one more step. The format is frozen, so never write them again.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from samples import OF_MXNET, make, tree

import jaxmxopt as mxopt
from jaxmxopt import amp, checkpoint, lr_scheduler

FOLDER = Path(__file__).parent / "files_of_0_1_0"
HALF = {"dtype": jnp.bfloat16}
SCHEDULE = lr_scheduler.FactorScheduler(step=2, base_lr=0.1, factor=0.5)


def definitions() -> dict[str, mxopt.OptimizerDef]:
    """An optimizer for every file of a tree."""
    adam, sgd = make(mxopt.Adam), make(mxopt.SGD)
    cosine = lr_scheduler.CosineScheduler(100, base_lr=0.2, warmup_steps=7)
    return {
        **{cls.__name__: make(cls) for cls in OF_MXNET if cls is not mxopt.BERTAdam},
        "accumulate": mxopt.Accumulate(sgd, every=2),
        "ema": mxopt.EMA(adam, decay=0.9),
        "clip": mxopt.ClipGlobalNorm(adam, max_norm=0.1),
        "groups": mxopt.Groups({"b": None, "c": sgd, "*": adam}),
        "nested": mxopt.EMA(mxopt.Groups({"a": mxopt.Accumulate(sgd, every=3), "*": adam})),
        "half": make(mxopt.Adam, multi_precision=True),
        "half_sgd": make(mxopt.SGD, multi_precision=True),
        "half_ftml": make(mxopt.FTML),
        "float16_adam": make(mxopt.Adam),
        "cosine": make(mxopt.Adam, lr_scheduler=cosine),
        "steps": make(mxopt.NAG, lr_scheduler=lr_scheduler.MultiFactorScheduler(step=[2, 4])),
        "poly": make(mxopt.RMSProp, lr_scheduler=lr_scheduler.PolyScheduler(50, base_lr=0.3)),
        "multipliers": make(mxopt.Adam, lr_mult={"a": 0.5, 0: 2.0, (1, "x"): 3.0},
                            wd_mult={"*": 0.25}, param_idx2name={0: "a_weight"}),
        "stacked": make(mxopt.Adam, learning_rate=np.float32([[0.1, 0.2]]).reshape(2)),
    }  # fmt: skip


def stateful() -> dict[str, Callable[[], Any]]:
    """What a Trainer or an Updater was made with, for every file of one."""
    return {
        "adam": lambda: make(mxopt.Adam, lr_scheduler=SCHEDULE, lr_mult={"b": 0.5}),
        "sgd_half": lambda: make(mxopt.SGD, multi_precision=True),
        "float16_adam": lambda: make(mxopt.Adam),
        "rmsprop": lambda: make(mxopt.RMSProp),
        "lbsgd": lambda: make(mxopt.LBSGD),
        "sgld": lambda: make(mxopt.SGLD),
        "ema": lambda: mxopt.EMA(make(mxopt.Adam), decay=0.9),
        "accumulate": lambda: mxopt.Accumulate(make(mxopt.SGD), every=2),
        "groups": lambda: mxopt.Groups({"b": make(mxopt.SGD), "*": make(mxopt.Adam)}),
    }


def of(name: str, seed: int) -> dict[str, Any]:
    """Weights or gradients for a file."""
    half = {"half": jnp.bfloat16, "float16": jnp.float16}
    return tree(seed, next((half[kind] for kind in half if kind in name), np.float32))


def stepped(name: str, path: Path) -> Any:
    """The weights of the step after a file of a tree."""
    opt: Any = checkpoint.load_definition(path)
    params = of(name, 0)
    blank = {"params": params, "state": opt.init(params)}
    whole = checkpoint.load(path, blank, opt=opt, params=params)
    if name == "stacked":
        # One of the two definitions.
        opt = jax.tree.map(lambda leaf: leaf[0] if np.ndim(leaf) else leaf, opt)
    return opt.step(whole["params"], of(name, 9), whole["state"])[0]


def trained(name: str, path: Path) -> Any:
    """The weights of the step after a file of a Trainer."""
    scaler = amp.DynamicLossScaler(init_scale=4.0) if name == "adam" else None
    trainer = mxopt.Trainer(of(name, 3), stateful()[name](), loss_scaler=scaler)
    trainer.load_states(path)
    return trainer.step(of(name, 9), 2)


def updated(name: str, path: Path) -> Any:
    """The weights of the step after a file of an Updater."""
    updater, weights, grads = mxopt.get_updater(stateful()[name]()), of(name, 3), of(name, 9)
    updater.set_states(path.read_bytes())
    return {key: updater(key, grads[key], weight) for key, weight in weights.items()}


WAYS: dict[str, Callable[[str, Path], Any]] = {"tree": stepped, "trainer": trained,
                                               "updater": updated}  # fmt: skip


def write() -> None:
    """Writes all files with the code of now."""
    for name, opt in definitions().items():
        params = of(name, 0)
        state, used = opt.init(params), opt
        if name == "stacked":
            used = opt.replace(learning_rate=0.1)
        for seed in (1, 2, 3):
            params, state = used.step(params, of(name, seed), state)
        whole = {"params": params, "state": state}
        checkpoint.save(FOLDER / f"tree-{name}.npz", whole, opt=opt, params=params)
    for name, make_one in stateful().items():
        scaler = amp.DynamicLossScaler(init_scale=8.0) if name == "adam" else None
        trainer = mxopt.Trainer(of(name, 0), make_one(), loss_scaler=scaler)
        updater, weights = mxopt.get_updater(make_one()), of(name, 0)
        for seed in (1, 2, 3):
            grads = of(name, seed)
            trainer.step(grads, 2)
            weights = {key: updater(key, grads[key], weight) for key, weight in weights.items()}
        trainer.save_states(FOLDER / f"trainer-{name}.npz")
        (FOLDER / f"updater-{name}.npz").write_bytes(updater.get_states(dump_optimizer=True))
    expected = {}
    for path in sorted(FOLDER.glob("*.npz")):
        way, _, name = path.stem.partition("-")
        new = WAYS[way](name, path)
        expected[path.stem] = {key: np.asarray(w, np.float32).tolist() for key, w in new.items()}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write()
