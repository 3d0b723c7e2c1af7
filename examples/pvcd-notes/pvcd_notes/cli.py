"""pvcd notes"""

from __future__ import annotations

import click

from .filters import comment


@click.command("notes")
@click.argument("text")
def command(text: str) -> None:
    """Print TEXT as userdata would have it: as a comment."""
    click.echo(comment(text))
