"""Measurements: how fast the front door is, beside the least that the same machine can do."""
