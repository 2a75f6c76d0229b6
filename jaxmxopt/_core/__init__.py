"""What every optimizer stands on: configs, names, states, checks, the engine, definitions."""

__version__ = "0.1.0"
