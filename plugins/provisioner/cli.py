"""pvcd examples: the scripts and the userdata that come with the provisioner."""

from __future__ import annotations

from pathlib import Path

import click

EXAMPLES = Path(__file__).parent / "examples"


def _names() -> list[str]:
    return sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml", ".txt"))


@click.group()
def examples() -> None:
    """List, show or copy the example scripts and userdata."""


@examples.command("list")
def list_examples() -> None:
    """List the examples."""
    click.echo("\n".join(_names()))


@examples.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the example NAME."""
    if name not in _names():
        raise click.ClickException(f"There is no example {name!r}. Examples: {', '.join(_names())}.")
    click.echo((EXAMPLES / name).read_text(), nl=False)


@examples.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def write(directory: Path) -> None:
    """Write all examples into DIRECTORY; no file is overwritten."""
    there = [name for name in _names() if (directory / name).exists()]
    if there:
        raise click.ClickException(f"Cannot write to {str(directory)!r}: it has {', '.join(there)} already.")
    directory.mkdir(parents=True, exist_ok=True)
    for name in _names():
        (directory / name).write_bytes((EXAMPLES / name).read_bytes())
        click.echo(directory / name)
