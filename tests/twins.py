"""Every algorithm again in float64 NumPy, as its docstring has it: simple, slow and plain.

Each takes the hyperparameters `h` (with `lr` and `wd` as they stand in this update), the count
`t`, weight, gradient and slots by name, and returns the new weight and the new slots.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np

Slots = dict[str, Any]


def clip(x: Any, bound: float | None) -> Any:
    return x if bound is None or bound <= 0 else np.clip(x, -bound, bound)


def scaled(h: SimpleNamespace, g: Any) -> Any:
    return clip(h.rescale_grad * g, h.clip_gradient)


def with_decay(h: SimpleNamespace, w: Any, g: Any) -> Any:
    return clip(h.rescale_grad * g + h.wd * w, h.clip_gradient)


def norm(x: Any) -> Any:
    return np.sqrt(np.sum(x * x))


def sgd(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    m = h.momentum * s.get("mom", 0) - h.lr * (h.wd * w + scaled(h, g))
    return w + m, {"mom": m} if s else {}


def nag(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    if not s:
        return w - h.lr * (g + h.wd * w), {}
    m = h.momentum * s["mom"]
    new = w - m + (1 + h.momentum) * (m - h.lr * (g + h.wd * w))
    return new, {"mom": m - h.lr * (g + h.wd * new)}


def signum(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    if not s:
        return (1 - h.lr * (h.wd + h.wd_lh)) * w - h.lr * np.sign(g), {}
    m = h.momentum * s["mom"] - (1 - h.momentum) * (h.wd * w + scaled(h, g))
    return (1 - h.lr * h.wd_lh) * w + h.lr * np.sign(m), {"mom": m}


def sgld(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    """Without the noise."""
    return w - h.lr / 2 * (scaled(h, g) + h.wd * w), {}


def dcasgd(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    step = -h.lr * (g + h.wd * w + h.lamda * g**2 * (w - s["previous_weight"]))
    if s["mom"] is None:
        return w + step, {"mom": None, "previous_weight": w}
    m = h.momentum * s["mom"] + step
    return w + m, {"mom": m, "previous_weight": w}


def lbsgd(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    c, total = s["num_cums"] + 1, s["cum_grad"] + g
    if c % h.batch_scale:
        return w, {"mom": s["mom"], "cum_grad": total, "num_cums": c}
    mean, span = total / h.batch_scale, h.warmup_epochs * h.updates_per_epoch
    if h.warmup_strategy == "lars":
        ratio = norm(w) ** 2 / (norm(mean) ** 2 + h.wd * norm(w) ** 2)
        lr = h.lr * np.clip(np.sqrt(ratio), 0.01, 100)
    else:
        x = min(c / span, 1) if span else 1
        power = {"linear": 1, "power2": 2, "sqrt": 0.5}[h.warmup_strategy]
        lr = h.lr * (1 + (h.batch_scale - 1) * x**power)
    m = -lr * (h.wd * w + scaled(h, mean))
    if s["mom"] is not None:
        m = h.momentum * s["mom"] + m
    slots = {"mom": None if s["mom"] is None else m, "cum_grad": 0 * g, "num_cums": c}
    return w + m, slots


def lars(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    lr = h.lr
    if norm(w) > 0 and norm(g) > 0:
        lr = h.lr * h.eta * norm(w) / (h.rescale_grad * norm(g) + h.wd * norm(w) + h.eps)
    step = -lr * (h.wd * w + scaled(h, g))
    if not s:
        return w + step, {}
    ratio = h.lr / s["last_lr"] if h.momentum_correction and s["last_lr"] else 1
    m = h.momentum * ratio * s["mom"] + step
    return w + m, {"mom": m, "last_lr": h.lr}


def _bounded(h: SimpleNamespace, w: Any) -> Any:
    size = max(norm(w), h.lower_bound or 0)
    return min(size, h.upper_bound) if h.upper_bound else size


def _ratio(size: Any, move: Any) -> Any:
    return size / norm(move) if size and norm(move) else 1


def lamb(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    m = h.beta1 * s["mean"] + (1 - h.beta1) * g
    v = h.beta2 * s["var"] + (1 - h.beta2) * g**2
    c1, c2 = (1 - h.beta1**t, 1 - h.beta2**t) if h.bias_correction else (1, 1)
    u = m / c1 / (np.sqrt(v / c2) + h.epsilon) + h.wd * w
    return w - h.lr * _ratio(_bounded(h, w), u) * u, {"mean": m, "var": v}


def lans(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = h.rescale_grad * g
    g = clip(g / (norm(g) or 1), h.clip_gradient)
    m = h.beta1 * s["mean"] + (1 - h.beta1) * g
    v = h.beta2 * s["var"] + (1 - h.beta2) * g**2
    r = np.sqrt(v / (1 - h.beta2**t)) + h.epsilon
    u = m / (1 - h.beta1**t) / r + h.wd * w
    k = g / r + h.wd * w
    size = _bounded(h, w)
    move = h.beta1 * _ratio(size, u) * u + (1 - h.beta1) * _ratio(size, k) * k
    return w - h.lr * move, {"mean": m, "var": v}


def adam(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = with_decay(h, w, g)
    m = h.beta1 * s["mean"] + (1 - h.beta1) * g
    v = h.beta2 * s["var"] + (1 - h.beta2) * g**2
    lr = h.lr * np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t)
    return w - lr * m / (np.sqrt(v) + h.epsilon), {"mean": m, "var": v}


def adamw(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    m = h.beta1 * (s["mean"] - g) + g
    v = h.beta2 * (s["var"] - g**2) + g**2
    mean = h.beta1 * m + (1 - h.beta1) * g if h.nesterov else m
    first, second = (1 - h.beta1**t, 1 - h.beta2**t) if h.correct_bias else (1, 1)
    if h.standard:
        step = mean / first / (np.sqrt(v / second) + h.epsilon)
        return w - h.lr * (step + h.wd * w), {"mean": m, "var": v}
    lr = h.lr * np.sqrt(second) / first
    return w - lr * (mean / (np.sqrt(v) + h.epsilon) + h.wd * w), {"mean": m, "var": v}


def adabelief(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = with_decay(h, w, g)
    m = h.beta1 * (s["mean"] - g) + g
    v = h.beta2 * (s["var"] - (m - g) ** 2) + (m - g) ** 2 + h.epsilon
    lr = h.lr * (np.sqrt(1 - h.beta2**t) / (1 - h.beta1**t) if h.correct_bias else 1)
    return w - lr * m / (np.sqrt(v) + h.epsilon), {"mean": m, "var": v}


def adamax(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = with_decay(h, w, g)
    m = h.beta1 * s["mean"] + (1 - h.beta1) * g
    u = np.maximum(h.beta2 * s["inf_norm"], np.abs(g))
    step = np.where(u == 0, 0, m / np.where(u == 0, 1, u))
    return w - h.lr / (1 - h.beta1**t) * step, {"mean": m, "inf_norm": u}


def nadam(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    now, following = (h.beta1 * (1 - 0.5 * 0.96 ** (h.schedule_decay * n)) for n in (t, t + 1))
    g = with_decay(h, w, g)
    p = s["m_schedule"] * now
    m = h.beta1 * s["mean"] + (1 - h.beta1) * g
    v = h.beta2 * s["var"] + (1 - h.beta2) * g**2
    ahead = (1 - now) * g / (1 - p) + following * m / (1 - p * following)
    new = w - h.lr * ahead / (np.sqrt(v / (1 - h.beta2**t)) + h.epsilon)
    return new, {"mean": m, "var": v, "m_schedule": p}


def ftml(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    if h.lr == 0:
        return w, s
    g = with_decay(h, w, g)
    v = h.beta2 * s["v"] + (1 - h.beta2) * g**2
    d = (1 - h.beta1**t) / h.lr * (np.sqrt(v / (1 - h.beta2**t)) + h.epsilon)
    z = h.beta1 * s["z"] + (1 - h.beta1) * g - (d - h.beta1 * s["d"]) * w
    return -z / d, {"d": d, "v": v, "z": z}


def adagrad(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    history = s["history"] + g**2
    return w - h.lr * (g / np.sqrt(history + h.eps) + h.wd * w), {"history": history}


def group_adagrad(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    history = s["history"] + np.mean(g**2, axis=1, keepdims=True)
    return w - h.lr * g / np.sqrt(history + h.eps), {"history": history}


def adadelta(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    a = h.rho * s["acc_g"] + (1 - h.rho) * g**2
    delta = np.sqrt(s["acc_delta"] + h.epsilon) / np.sqrt(a + h.epsilon) * g
    b = h.rho * s["acc_delta"] + (1 - h.rho) * delta**2
    return w - (delta + h.wd * w), {"acc_g": a, "acc_delta": b}


def rmsprop(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = with_decay(h, w, g)
    n = (1 - h.gamma1) * g**2 + h.gamma1 * s["n"]
    if not h.centered:
        return clip(w - h.lr * g / np.sqrt(n + h.epsilon), h.clip_weights), {"n": n}
    mean = (1 - h.gamma1) * g + h.gamma1 * s["g"]
    delta = h.gamma2 * s["delta"] - h.lr * g / np.sqrt(n - mean**2 + h.epsilon)
    return clip(w + delta, h.clip_weights), {"n": n, "g": mean, "delta": delta}


def ftrl(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    if h.lr == 0:
        return w, s
    g = scaled(h, g)
    n = s["n"] + g**2
    z = s["z"] + g - (np.sqrt(n) - np.sqrt(s["n"])) * w / h.lr
    new = (np.sign(z) * h.lamda1 - z) / ((h.beta + np.sqrt(n)) / h.lr + h.wd)
    return np.where(np.abs(z) > h.lamda1, new, 0), {"z": z, "n": n}


def test(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    new = w + h.rescale_grad * g
    return new, {"weight": new}


test.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def lion(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    step = np.sign(h.beta1 * s["mean"] + (1 - h.beta1) * g)
    m = h.beta2 * s["mean"] + (1 - h.beta2) * g
    return w - h.lr * (step + h.wd * w), {"mean": m}


def radam(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    w, g = (w - h.lr * h.wd * w, g) if h.decoupled else (w, g + h.wd * w)
    m = h.beta1 * s["mean"] + (1 - h.beta1) * g
    v = h.beta2 * s["var"] + (1 - h.beta2) * g**2
    step, most = m / (1 - h.beta1**t), 2 / (1 - h.beta2) - 1
    length = most - 2 * t * h.beta2**t / (1 - h.beta2**t)
    if length > 5:
        ratio = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
        step = step * np.sqrt(ratio) * np.sqrt(1 - h.beta2**t) / (np.sqrt(v) + h.epsilon)
    return w - h.lr * step, {"mean": m, "var": v}


def ademamix(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    share = 1 if h.warmup is None else min(t / h.warmup, 1)
    # Evenly in 1 / log(beta3), as of the half-life.
    beta3 = np.exp(1 / ((1 - share) / np.log(h.beta1) + share / np.log(h.beta3)))
    m = h.beta1 * s["mean"] + (1 - h.beta1) * g
    slow = beta3 * s["slow"] + (1 - beta3) * g
    v = h.beta2 * s["var"] + (1 - h.beta2) * g**2
    step = m / (1 - h.beta1**t) + share * h.alpha * slow
    step = step / (np.sqrt(v / (1 - h.beta2**t)) + h.epsilon)
    return w - h.lr * (step + h.wd * w), {"mean": m, "slow": slow, "var": v}


def free(h: SimpleNamespace, t: int, y: Any, step: Any, s: Slots, mu: float) -> tuple[Any, Slots]:
    """By the average itself, which ours does not keep."""
    lr = h.lr * min(1, t / max(h.warmup_steps, 1))
    x = (y - (1 - mu) * s["z"]) / mu if t > 1 else y
    z, largest = s["z"] - lr * step, max(lr, s["lr_max"])
    mine = t**h.r * largest**h.weight_lr_power
    total = s["weight_sum"] + mine
    x = x + mine / total * (z - x)
    slots = {"z": z, "weight_sum": total, "lr_max": largest, "momentum": mu}
    return (1 - mu) * z + mu * x, slots


def schedule_free_sgd(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    return free(h, t, w, scaled(h, g) + h.wd * w, s, h.momentum)


def schedule_free_adamw(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    v = h.beta2 * s["var"] + (1 - h.beta2) * g**2
    step = g / (np.sqrt(v / (1 - h.beta2**t)) + h.epsilon) + h.wd * w
    new, slots = free(h, t, w, step, s, h.beta1)
    return new, {"var": v, **slots}


def adafactor(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g, fresh = scaled(h, g), t**h.beta2_decay
    if "var" in s:
        new = {"var": (1 - fresh) * s["var"] + fresh * g**2}
        var = new["var"]
    else:
        means = {
            "row": np.mean(g**2, -1, keepdims=True),
            "column": np.mean(g**2, -2, keepdims=True),
        }
        new = {name: (1 - fresh) * s[name] + fresh * mean for name, mean in means.items()}
        var = new["row"] @ new["column"]
        var = var / np.maximum(np.mean(new["row"], -2, keepdims=True), h.epsilon1)
    u = g / np.sqrt(np.maximum(var, h.epsilon1**2))
    rate = min(h.lr, t**-0.5) * max(h.epsilon2, np.sqrt(np.mean(w**2)))
    rate = rate / max(1, np.sqrt(np.mean(u**2)) / h.clip_threshold)
    return w - h.lr * h.wd * w - rate * u, new


def muon(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g = scaled(h, g)
    m = h.momentum * s["mom"] + (1 - h.momentum) * g
    u = h.momentum * m + (1 - h.momentum) * g if h.nesterov else m
    turned = h.matrices.startswith("o")
    u = u.T if turned else u
    # Inputs by outputs: a fused weight is taken apart along its inputs.
    parts = np.split(u, 2) if "2" in h.matrices else [u]
    step = np.concatenate([_orthogonal(h, part) for part in parts])
    return w - h.lr * ((step.T if turned else step) + h.wd * w), {"mom": m}


def _orthogonal(h: SimpleNamespace, x: Any) -> Any:
    inputs, outputs = x.shape
    scale = {
        "original": np.sqrt(max(1, outputs / inputs)),
        "match_rms_adamw": 0.2 * np.sqrt(max(inputs, outputs)),
        "none": 1,
    }[h.scale]
    x = x / max(norm(x), h.epsilon)
    for _ in range(h.steps):
        a = x @ x.T
        x = h.a * x + (h.b * a + h.c * a @ a) @ x
    return scale * x


def soap(h: SimpleNamespace, t: int, w: Any, g: Any, s: Slots) -> tuple[Any, Slots]:
    g, new = scaled(h, g), dict(s)
    beta = h.beta2 if h.shampoo_beta is None else h.shampoo_beta
    sides = {"left": (g @ g.T, 0), "right": (g.T @ g, 1)}
    sides = {side: kept for side, kept in sides.items() if s[side] is not None}
    for side, (product, _) in sides.items():
        new[side] = beta * s[side] + (1 - beta) * product
    if t == 1:
        for side in sides:
            new[f"{side}_basis"] = np.linalg.eigh(new[side])[1][:, ::-1]
        return w, new
    q, r = (np.eye(n) if s[k] is None else s[k] for n, k in zip(g.shape, _BASES, strict=True))
    new["mean"] = h.beta1 * s["mean"] + (1 - h.beta1) * g
    new["var"] = h.beta2 * s["var"] + (1 - h.beta2) * (q.T @ g @ r) ** 2
    step = q @ ((q.T @ new["mean"] @ r) / (np.sqrt(new["var"]) + h.epsilon)) @ r.T
    if h.normalize_gradient:
        step = step / (np.sqrt(np.mean(step**2)) + h.epsilon)
    lr = h.lr
    if h.correct_bias:
        lr = lr * np.sqrt(1 - h.beta2 ** (t - 1)) / (1 - h.beta1 ** (t - 1))
    w = (w - lr * step) * (1 - h.lr * h.wd)
    if (t - 1) % h.precondition_frequency == 0:
        for side, (_, axis) in sides.items():
            product = new[side] @ s[f"{side}_basis"]
            order = np.argsort(-np.sum(s[f"{side}_basis"] * product, axis=0))
            new["var"] = np.take(new["var"], order, axis)
            new[f"{side}_basis"] = np.linalg.qr(product[:, order])[0]
    return w, new


_BASES = ("left_basis", "right_basis")
