"""The core of every optimizer: configs, names, states, checks, the engine, definitions."""

__version__ = "0.1.0"
