"""Filters for templates of userdata. Another process imports this module alone: it must not import pvcd."""

from __future__ import annotations


def comment(text: str) -> str:
    """Prefix each line with `#`."""
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())
