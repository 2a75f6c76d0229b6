"""Data, first weights and the printing of losses, for both forms of a program."""

import argparse

import numpy as np


def first_weights(shapes, seed=0):
    """Return float32 weights by name."""
    rng = np.random.default_rng(seed)
    return {name: normal(rng, shape) / 4 for name, shape in shapes.items()}


def normal(rng, *shape):
    """Return normal float32 numbers."""
    shape = shape[0] if shape and isinstance(shape[0], tuple) else shape
    return rng.standard_normal(shape).astype(np.float32)


def put(net, weights, array):
    """Give a gluon network its first weights, under the names that `save_parameters` writes."""
    net.initialize()
    for name, parameter in net._collect_params_with_prefix().items():
        parameter.set_data(array(weights[name]))


def run(main):
    """Trains, and prints every tenth loss."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    for number, loss in enumerate(main(parser.parse_args().steps), 1):
        if number % 10 == 0:
            print(f"{number}: {loss:.6f}")
