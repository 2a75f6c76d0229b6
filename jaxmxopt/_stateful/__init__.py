"""MXNet's stateful API: Optimizer, Updater, Trainer."""

from jaxmxopt._stateful import tree_optimizer as tree_optimizer
