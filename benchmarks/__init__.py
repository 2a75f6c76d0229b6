"""Benchmarks against optax, torch and MXNet: `make bench`."""
