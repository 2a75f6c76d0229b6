"""Runs inside MXNet's own environment: one step a line, seconds back.

A line of JSON on standard input names a case and makes it; an empty line runs it once.
"""

import json
import sys
import time

import mxnet as mx
import numpy as np

RATE, DECAY = 1e-3, 1e-2
KINDS = {
    "adam": ("adam", {}),
    "sgd": ("sgd", {"momentum": 0.9}),
    "rmsprop": ("rmsprop", {}),
    "lamb": ("lamb", {"wd": DECAY}),
    "adagrad": ("adagrad", {}),
}


def tree(case):
    generator = np.random.RandomState(0)
    name, options = KINDS[case["algorithm"]]
    updater = mx.optimizer.get_updater(mx.optimizer.create(name, learning_rate=RATE, **options))
    make = lambda: [mx.nd.array(generator.randn(*s).astype("float32")) for s in case["shapes"]]  # noqa: E731
    weights, grads = make(), make()
    indices = list(range(len(weights)))

    def run():
        updater(list(indices), list(grads), list(weights))
        mx.nd.waitall()

    return run


def trainer(case):
    params = mx.gluon.ParameterDict()
    for number, shape in enumerate(case["shapes"]):
        params.get(f"p{number}_weight", shape=tuple(shape), init="ones")
    params.initialize()
    for param in params.values():
        param.grad()[:] = 1e-3
    owner = mx.gluon.Trainer(params, "adam", {"learning_rate": RATE})
    weights = [param.data() for param in params.values()]

    def run():
        for weight in weights:
            # As backward does, or the trainer would take the gradients for stale.
            weight._fresh_grad = True
        start = time.perf_counter()
        owner.step(1)
        mx.nd.waitall()
        return time.perf_counter() - start

    return run


def single(case):
    updater = mx.optimizer.get_updater(mx.optimizer.create(case["algorithm"], learning_rate=RATE))
    weight, grad = mx.nd.ones((64,)), mx.nd.ones((64,))

    def run():
        for _ in range(case["calls"]):
            updater(0, grad, weight)
            weight.wait_to_read()

    return run


def lazy(case):
    """Lazy Adam on some rows of a table, ascending and distinct as MXNet has them."""
    rows, shape = case["rows"], tuple(case["shape"])
    generator = np.random.RandomState(0)
    indices = np.sort(generator.choice(shape[0], rows, replace=False))
    values = generator.randn(rows, *shape[1:]).astype("float32")
    grad = mx.nd.sparse.row_sparse_array((values, indices), shape=shape)
    weight = mx.nd.zeros(shape)
    updater = mx.optimizer.get_updater(mx.optimizer.create("adam", learning_rate=RATE))

    def run():
        updater(0, grad, weight)
        mx.nd.waitall()

    return run


KINDS_OF_CASE = {"tree": tree, "trainer": trainer, "single": single, "lazy": lazy}


def main():
    run = None
    for line in sys.stdin:
        if line.strip():
            case = json.loads(line)
            run = KINDS_OF_CASE[case["kind"]](case)
            run()
            print("ready", flush=True)
        else:
            start = time.perf_counter()
            taken = run()
            print(taken or time.perf_counter() - start, flush=True)


main()
