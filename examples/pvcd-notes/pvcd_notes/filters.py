"""Filters for the templates of userdata. Another process imports this module by itself: it needs nothing of pvcd."""

from __future__ import annotations


def comment(text: str) -> str:
    """Each line behind a `#`."""
    return "\n".join(f"# {line}".rstrip() for line in text.splitlines())
