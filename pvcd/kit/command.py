"""`pvcd plugin new` and `pvcd plugin check`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from pvcd.errors import PvcdError
from pvcd.kit import project
from pvcd.testing import conformance


@click.group()
def plugin() -> None:
    """Create a new plugin, or check one against the rules."""


@plugin.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Where to create the folder pvcd-NAME; by default here.",
)
def new(name: str, directory: Path) -> None:
    """Create a small working plugin with its tests, to begin with."""
    try:
        folder = project.create(name, directory)
    except (PvcdError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"Plugin {name!r} created in {folder}. Its README.md says how to try it.")


@plugin.command()
@click.argument("plugin", default=".")
def check(plugin: str) -> None:
    """Check a PLUGIN: the folder of a project, a Python file or package, or the name of an installed one.

    By default it is the project in this folder. Each check prints one line; the exit code is 1 if any fails. Nothing
    outside this process is opened, asked or changed.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # complaints are printed below
    try:
        found = project.find(plugin)
    except PvcdError as error:
        raise click.ClickException(error.sentence) from None
    except Exception as error:
        raise click.ClickException(f"Cannot import {plugin!r}: {type(error).__name__}: {error}.") from error
    failed = False
    for name, complaints in conformance.examine(found):
        failed |= bool(complaints)
        click.echo(f"{'failed' if complaints else 'ok':6}  {name}")
        for complaint in complaints:
            click.echo(f"        {complaint}")
    sys.exit(1 if failed else 0)
