"""What every optimizer stands on: configs, names, states, checks, the engine, definitions."""
