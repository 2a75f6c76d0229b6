"""Drawing of the configurations that are recorded from MXNet.

Standard library only: the worker imports this inside MXNet's own environment. Every
drawing depends on its arguments alone, so a seed gives the same configurations anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from _recordings import LEFT_OUT, RECORDINGS, Json, Recording

Case = dict[str, Json]

NAMES = ("fc_weight", "fc_bias", "bn_gamma", "bn_beta", "conv_weight", "conv_bias")


def draw_cases(name: str, seed: int, version: str) -> list[list[Case]]:
    """Draws the cases of one file.

    Args:
        name: a key of ``RECORDINGS``.
        seed: the seed of the whole recording.
        version: MXNet's version, to be sure that the right one is asked.

    Returns:
        For every case its candidates, in the order of preference: they differ in numbers
        and shapes only. The worker takes the first one whose trajectory is finite.

    Raises:
        ValueError: if the file is recorded from another version.
    """
    cases: list[list[Case]] = []
    for part, recording in enumerate(RECORDINGS[name]):
        if recording.mxnet != version:
            raise ValueError(f"{name} is recorded from {recording.mxnet}, not {version}")
        options = _draw_options(recording, random.Random(f"{seed}/{name}/{part}"))
        for chosen in options:
            case_id = f"{name}-{len(cases):02d}"
            rngs = [random.Random(f"{seed}/{case_id}/{i}") for i in range(12)]
            cases.append([_draw_case(recording, case_id, chosen, rng) for rng in rngs])
    return cases


def _draw_options(of: Recording, rng: random.Random) -> list[dict[str, Json]]:
    """Chooses which options are on in each case, each value about equally often."""
    columns: dict[str, Sequence[Json]] = {
        "wd": (False, True, True) if of.decays else (False,),
        "clip_gradient": (False, True),
        "rescale_grad": (False, True),
        "learning_rate": (True, True, True, False),
        "lr_scheduler": (None, "Factor", None, "MultiFactor", None, "Poly", None, "Cosine"),
        "lr_mult": (None, "index", None, "name"),
        "wd_mult": (None, "index", "name", None, "both"),
        "named": (False, True),
        "begin_num_update": (LEFT_OUT, LEFT_OUT, 7, 100),
        "half": (None,) if of.sparse else (None, None, None, "all", None, None, None, "some"),
        "call": ("single", "list") if of.lists else ("single",),
        "weights": range(1, of.max_weights + 1),
        "gradients": of.gradients,
        "weight_stype": of.weight_stypes,
        "zero_weight": (False, False, True),
        **{f"own/{key}": values for key, values in of.own.items()},
    }
    drawn: dict[str, list[Json]] = {}
    for key, values in columns.items():
        column = [values[i % len(values)] for i in range(of.count)]
        rng.shuffle(column)
        drawn[key] = column
    return [{key: column[n] for key, column in drawn.items()} for n in range(of.count)]


def _draw_case(of: Recording, case_id: str, on: dict[str, Json], rng: random.Random) -> Case:
    """Draws the numbers of one case whose options are chosen."""
    steps = rng.randint(8, 12)
    count = on["weights"] if on["half"] != "some" else max(2, on["weights"])
    count = min(count, of.max_weights)
    begin = 0 if on["begin_num_update"] is LEFT_OUT else on["begin_num_update"]
    kwargs: dict[str, Json] = {
        key.removeprefix("own/"): value for key, value in on.items() if key.startswith("own/")
    }
    kwargs |= of.fixed
    kwargs["wd"] = rng.choice((0.001, 0.004, 0.01, 0.03, 0.1)) if on["wd"] else LEFT_OUT
    if on["clip_gradient"]:
        kwargs["clip_gradient"] = rng.choice((0.1, 0.25, 0.5, 0.9))
    if on["rescale_grad"]:
        kwargs["rescale_grad"] = rng.choice((0.5, 0.1, 0.125, 0.7))
    kwargs["begin_num_update"] = on["begin_num_update"]
    if on["half"]:
        kwargs["multi_precision"] = True
    if of.cls == "Signum" and kwargs["momentum"] == 0.0:
        kwargs["wd_lh"] = LEFT_OUT  # MXNet's signSGD refuses it.

    scheduler = None
    if on["lr_scheduler"] is not None:
        scheduler = _draw_scheduler(on["lr_scheduler"], of, begin, steps, rng)
        if of.default_rate:  # Otherwise the class's default would overrule the scheduler's.
            kwargs["learning_rate"] = scheduler["kwargs"]["base_lr"]
        if of.cls == "LARS" and of.lists:  # Its last rate is one for all, renewed each call.
            on = {**on, "call": "list"}
        elif of.cls in ("LARS", "LBSGD"):  # LBSGD reads the rate before it counts.
            count = 1
    elif on["learning_rate"]:
        kwargs["learning_rate"] = rng.choice(of.rates)

    names, lr_mult, wd_mult = _draw_multipliers(of, on, count, rng)
    dtypes = ["float16" if on["half"] else "float32"] * count
    if on["half"] == "some" and of.mixed and count > 1:
        dtypes[rng.randrange(count)] = "float32"
    return {
        "id": case_id,
        "mxnet": of.mxnet,
        "class": of.cls,
        "kwargs": {key: value for key, value in kwargs.items() if value is not LEFT_OUT},
        "lr_scheduler": scheduler,
        "lr_mult": lr_mult,
        "wd_mult": wd_mult,
        "param_idx2name": names,
        "indices": list(range(count)),
        "shapes": [_draw_shape(rng.choice(of.ranks), rng) for _ in range(count)],
        "dtypes": dtypes,
        "multi_precision": on["half"] is not None,
        "sparse": of.sparse,
        "weight_stype": on["weight_stype"],
        "call": on["call"],
        "steps": steps,
        "state": list(of.slots),
        "gradients": on["gradients"],
        "zero_weight": on["zero_weight"],
    }


def _draw_multipliers(
    of: Recording, on: dict[str, Json], count: int, rng: random.Random
) -> tuple[Json, Json, Json]:
    """Draws param_idx2name, lr_mult and wd_mult, as lists of pairs."""
    lr_factors = (0.5, 2.0, 0.25) * 2 + ((0.0,) if of.zero_rate and count > 1 else ())
    wd_factors = (0.0, 0.5, 2.0)
    names = None
    if on["named"] or "name" in (on["lr_mult"], on["wd_mult"]) or on["wd_mult"] == "both":
        chosen = rng.sample(NAMES, count)
        known = count - 1 if count > 2 and rng.random() < 0.3 else count
        names = [[i, chosen[i]] for i in range(known)]

    def pairs(mode: str | None, factors: Sequence[float]) -> list[list[Json]]:
        keys: list[Json] = []
        if mode in ("name", "both"):
            keys += rng.sample([name for _, name in names or ()], rng.randint(1, len(names or ())))
        if mode in ("index", "both"):
            keys += rng.sample(range(count), rng.randint(1, count))
        return [[key, rng.choice(factors)] for key in keys]

    lr_mult = pairs(on["lr_mult"], lr_factors)
    wd_mult = pairs(on["wd_mult"] if of.decays else None, wd_factors)
    if of.mxnet != "1.9.1":  # 2.x decays every weight by default; say what 1.9.1 takes as given.
        given = {key for key, _ in wd_mult}
        for _, name in names or ():
            if not name.endswith(("_weight", "_gamma")) and name not in given:
                wd_mult.append([name, 0.0])
    return names, lr_mult, wd_mult


def _draw_shape(rank: int, rng: random.Random) -> list[int]:
    """Draws a small shape."""
    if rank == 1:
        return [rng.randint(1, 32)]
    largest = {2: 8, 3: 4, 4: 3}[rank]
    return [rng.randint(2, largest)] + [rng.randint(1, largest) for _ in range(rank - 1)]


def _draw_scheduler(
    kind: str, of: Recording, begin: int, steps: int, rng: random.Random
) -> dict[str, Json]:
    """Draws a schedule that changes the rate within the steps recorded."""
    base_lr = rng.choice([rate for rate in of.rates if rate >= 0.01])
    kwargs: dict[str, Json] = {"base_lr": base_lr}
    warmup = begin + rng.randint(2, 5) if rng.random() < 0.5 else 0
    if warmup:
        kwargs["warmup_steps"] = warmup
        kwargs["warmup_mode"] = rng.choice(("linear", "constant"))
        kwargs["warmup_begin_lr"] = rng.choice((0.002, 0.005))
    if kind == "Factor":
        kwargs |= {"step": begin // 2 + rng.randint(2, 5), "factor": rng.choice((0.6, 0.8, 0.9))}
        if rng.random() < 0.5:
            kwargs["stop_factor_lr"] = rng.choice((0.002, 0.005))
    elif kind == "MultiFactor":
        changes = rng.sample(range(begin + 2, begin + steps), rng.randint(1, 3))
        kwargs |= {"step": sorted(changes), "factor": rng.choice((0.5, 0.7, 0.9))}
    else:
        kwargs["max_update"] = max(warmup, begin) + rng.randint(4, steps + 3)
        if not of.zero_rate or rng.random() < 0.6:
            kwargs["final_lr"] = rng.choice((0.001, 0.002, 0.005))
        if kind == "Poly" and rng.random() < 0.7:
            kwargs["pwr"] = rng.choice((1, 2, 3))
    return {"class": f"{kind}Scheduler", "kwargs": kwargs}


def draw_schedules(seed: int) -> list[Case]:
    """Draws the configurations of the schedulers.

    Args:
        seed: the seed of the whole recording.

    Returns:
        Cases with ``id``, ``class``, ``kwargs``, ``method`` (``__call__``, or
        ``get_warmup_lr`` of the abstract base) and ``updates``: the method is asked for
        0, 1, ... below that number.
    """
    rng = random.Random(f"{seed}/schedulers")
    kinds = ["Factor", "MultiFactor", "Poly", "Cosine"] * 20 + ["LR"] * 8
    return [_draw_schedule(f"schedulers-{n:02d}", kind, rng) for n, kind in enumerate(kinds)]


def _draw_schedule(case_id: str, kind: str, rng: random.Random) -> Case:
    kwargs: dict[str, Json] = {}
    if rng.random() < 0.8:
        kwargs["base_lr"] = rng.choice((0.05, 0.1, 0.4, 1.0, 3.0))
    base_lr = kwargs.get("base_lr", 0.01)
    warmup = rng.choice((1, 2, 5, 8, 13)) if kind == "LR" or rng.random() < 0.6 else 0
    if warmup:
        kwargs["warmup_steps"] = warmup
        if rng.random() < 0.7:
            kwargs["warmup_begin_lr"] = rng.choice((0.001, 0.003, 0.01, base_lr))
        if rng.random() < 0.7:
            kwargs["warmup_mode"] = rng.choice(("linear", "constant"))
    updates = 45
    if kind == "Factor":
        kwargs["step"] = rng.choice((1, 2, 3, 7, 10))
        if rng.random() < 0.9:
            kwargs["factor"] = rng.choice((0.1, 0.5, 0.7, 0.97, 1.0))
        if rng.random() < 0.5:
            kwargs["stop_factor_lr"] = rng.choice((1e-4, 1e-3, 0.005))
    elif kind == "MultiFactor":
        kwargs["step"] = sorted(rng.sample(range(1, 40), rng.randint(1, 5)))
        if rng.random() < 0.9:
            kwargs["factor"] = rng.choice((0.1, 0.5, 0.7, 0.97, 1.0))
    elif kind in ("Poly", "Cosine"):
        kwargs["max_update"] = warmup + rng.choice((1, 3, 10, 17, 25))
        if rng.random() < 0.6:
            kwargs["final_lr"] = rng.choice((1e-4, 0.001, 0.005, base_lr))
        if kind == "Poly" and rng.random() < 0.75:
            kwargs["pwr"] = rng.choice((1, 2, 3, 0.5, 0.9))
    else:
        updates = warmup
    return {
        "id": case_id,
        "class": f"{kind}Scheduler",
        "kwargs": kwargs,
        "method": "get_warmup_lr" if kind == "LR" else "__call__",
        "updates": updates,
    }
