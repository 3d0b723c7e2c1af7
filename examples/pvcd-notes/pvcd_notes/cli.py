"""pvcd notes"""

from __future__ import annotations

import click

from .filters import comment


@click.command("notes")
@click.argument("text")
def command(text: str) -> None:
    """Print TEXT as a comment for userdata."""
    click.echo(comment(text))
