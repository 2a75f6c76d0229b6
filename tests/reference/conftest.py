"""Keeps pytest out of this folder: the worker imports only inside MXNet's environment."""

collect_ignore_glob = ["*.py"]
