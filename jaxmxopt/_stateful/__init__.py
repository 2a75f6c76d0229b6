"""MXNet's stateful API: Optimizer, Updater, Trainer."""
