"""Benchmarks: how fast the API is, beside a baseline on the same machine."""
