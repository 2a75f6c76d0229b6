"""Definitions around definitions."""
