"""The command `pvcd`; each subcommand imports what it needs only when it runs."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pvcd.plugin.registry import Registry

SUBCOMMANDS = {
    "hooks": "pvcd.daemon.hooks_command:hooks",
    "plugin": "pvcd.kit.command:plugin",
}


class LazyGroup(click.Group):
    """A group that imports its larger subcommands only when they run, and plugins only for help and other names."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, with those of plugins."""
        with contextlib.suppress(SystemExit):  # a mistake in the settings is printed; the help follows
            ctx.obj = {command.name: command for command in _gather().cli_commands}
        return sorted({*super().list_commands(ctx), *SUBCOMMANDS, *(ctx.obj or ())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand by name."""
        if cmd_name in SUBCOMMANDS:
            module, _, name = SUBCOMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        listed: click.Command | None = (ctx.obj or {}).get(cmd_name) if ctx else None
        return super().get_command(ctx, cmd_name) or listed or _command_of_a_plugin(cmd_name)


def _command_of_a_plugin(name: str) -> click.Command | None:
    for only in (name, None):  # first the built-in plugin of this name: importing all of them takes longer
        declared = _gather(only)
        for command in declared.cli_commands:
            if command.name == name:
                return command
    click.echo("".join(f"{complaint}\n" for complaint in declared.complaints), nl=False, err=True)
    return None


def _gather(only: str | None = None) -> Registry:
    """Return the declarations of the plugins that the settings load; without a settings file, of the installed ones."""
    from pvcd.plugin.loading import load
    from pvcd.plugin.registry import gather
    from pvcd.settings import SettingsError, plugins_section

    try:
        return gather(load(plugins_section(_values()), only))
    except SettingsError as error:
        click.echo(error, err=True)
        sys.exit(2)


def _values() -> dict[str, Any]:
    """Return the content of the settings file, or nothing if the default file does not exist."""
    from pvcd.settings import DEFAULT_FILE, read_file, settings_file

    file = settings_file()
    return {} if file == DEFAULT_FILE and not file.exists() else read_file(file)


@click.group(cls=LazyGroup, epilog="`pvcd plugins` tells which plugin adds which subcommand, as cli_commands.")
@click.version_option(package_name="pvcd")
def main() -> None:
    """Run a cluster of hypervisors: virtual machines behind one HTTP API.

    The daemons read the file named by PVC_CONFIG_FILE, by default /etc/pvc/pvc-api.yaml.
    """


@main.command()
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="The number of API processes."
)
@click.option("--shared-port", is_flag=True, hidden=True)
@click.option("--fd", type=int, help="An inherited socket to listen on, too.")
def api(workers: int, shared_port: bool, fd: int | None) -> None:
    """Serve the HTTP API until SIGTERM; SIGHUP reads the tokens and the certificate again."""
    from pvcd.daemon.run import run, run_api_processes
    from pvcd.declare.context import Role

    if workers > 1 and fd is not None:
        raise click.UsageError("--fd cannot be used with --workers above 1: one process listens on the socket.")
    sys.exit(run_api_processes(workers) if workers > 1 else run(Role.API, shared_port=shared_port, fd=fd))


@main.command()
def node() -> None:
    """Run the agent of this hypervisor until SIGTERM."""
    from pvcd.daemon.run import run
    from pvcd.declare.context import Role

    sys.exit(run(Role.NODE))


@main.command()
def worker() -> None:
    """Run tasks, such as the provisioning of VMs, until SIGTERM, which first undoes those that run."""
    from pvcd.daemon.run import run
    from pvcd.declare.context import Role

    sys.exit(run(Role.WORKER))


@main.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def check(file: Path | None) -> None:
    """Check a settings FILE and the plugins it loads; exit with 2 and one sentence for each mistake.

    Exit with 1 if a plugin would be refused, which is named as well. Warnings, of what is open to others, are no
    mistakes.
    """
    from pvcd.daemon.exposure import warnings
    from pvcd.plugin.loading import PluginError
    from pvcd.plugin.registry import start
    from pvcd.settings import SettingsError, read_file, settings_file

    file = file or settings_file()
    try:
        settings, declared = start(read_file(file))
    except (SettingsError, PluginError) as error:
        click.echo(error, err=True)
        sys.exit(2)
    click.echo(f"{file} is valid; plugins: {', '.join(plugin.name for plugin in declared.plugins)}.")
    for complaint in declared.complaints:
        click.echo(complaint, err=True)
    for warning in warnings(settings, file):
        click.echo(f"Warning: {warning}", err=True)
    sys.exit(1 if declared.complaints else 0)


@main.command()
def openapi() -> None:
    """Print the API's OpenAPI document, with the plugins that the settings load.

    Without a settings file it has all installed plugins.
    """
    from pvcd.declare.hook_schema import schemas
    from pvcd.http.openapi import document

    declared = _gather()
    for complaint in declared.complaints:
        click.echo(complaint, err=True)
    if any(plugin.required for plugin in declared.refused):
        sys.exit(2)
    click.echo(json.dumps(document(declared.routes, schemas(declared.known_operations.values())), indent=2))


@main.command()
def plugins() -> None:
    """List the plugins that the settings load, with their origin and their declarations.

    A refused plugin is listed with the reason: exit with 2 if it is required, else with 1.
    """
    declared = _gather()
    refused = {(plugin.name, plugin.origin): plugin.reason for plugin in declared.refused}
    for name, origin in sorted([*refused, *((plugin.name, plugin.origin) for plugin in declared.plugins)]):
        click.echo(f"{name} ({origin})")
        if (name, origin) in refused:
            click.echo(f"  refused: {refused[name, origin]}")
            continue
        for kind, names in declared.names[name].items():
            click.echo(f"  {kind}: {', '.join(names)}")
    sys.exit(2 if any(plugin.required for plugin in declared.refused) else 1 if refused else 0)
