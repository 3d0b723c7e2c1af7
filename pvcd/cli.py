"""The command `pvcd`; each subcommand imports what it needs only when it runs."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import click

SUBCOMMANDS = {
    "hooks": "pvcd.sitehooks.command:hooks",
    "sandbox": "pvcd.sandbox.command:sandbox",
}


class LazyGroup(click.Group):
    """A group whose larger subcommands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all subcommands."""
        return sorted([*super().list_commands(ctx), *SUBCOMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One subcommand by name."""
        if cmd_name in SUBCOMMANDS:
            module, _, name = SUBCOMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=LazyGroup)
@click.version_option(package_name="pvcd")
def main() -> None:
    """Run a cluster of hypervisors: virtual machines behind one HTTP API.

    The daemons read the file named by PVC_CONFIG_FILE, by default /etc/pvc/pvc-api.yaml.
    """


@main.command()
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="How many processes serve it."
)
@click.option("--shared-port", is_flag=True, hidden=True)
@click.option("--fd", type=int, help="Listen on this inherited socket too.")
def api(workers: int, shared_port: bool, fd: int | None) -> None:
    """Serve the HTTP API until SIGTERM; SIGHUP reads the tokens and the certificate again."""
    from pvcd.context import Role
    from pvcd.daemons import run, run_workers

    if workers > 1 and fd is not None:
        raise click.UsageError("--fd is for one process, not for several --workers.")
    sys.exit(run_workers(workers) if workers > 1 else run(Role.API, shared_port=shared_port, fd=fd))


@main.command()
def node() -> None:
    """Run the agent of this hypervisor until SIGTERM."""
    from pvcd.context import Role
    from pvcd.daemons import run

    sys.exit(run(Role.NODE))


@main.command()
def worker() -> None:
    """Run tasks, such as the provisioning of VMs, until SIGTERM; those that run then are undone first."""
    from pvcd.context import Role
    from pvcd.daemons import run

    sys.exit(run(Role.WORKER))


@main.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
def check(file: Path | None) -> None:
    """Check a settings FILE and the plugins it loads; exit 2 with one sentence for each mistake."""
    from pvcd import registry
    from pvcd.settings import SettingsError, read_file, settings_file

    file = file or settings_file()
    try:
        _, declared = registry.start(read_file(file))
    except (SettingsError, registry.PluginError) as error:
        click.echo(error, err=True)
        sys.exit(2)
    click.echo(f"{file} is good; plugins: {', '.join(plugin.name for plugin in declared.plugins)}.")


@main.command()
def openapi() -> None:
    """Print the API's OpenAPI document, with the plugins that the settings load.

    Without a settings file these are the installed ones.
    """
    from pvcd import registry
    from pvcd.http.openapi import document
    from pvcd.settings import DEFAULT_FILE, SettingsError, plugins_section, read_file, settings_file
    from pvcd.sitehooks.envelope import schemas

    file = settings_file()
    try:
        values = {} if file == DEFAULT_FILE and not file.exists() else read_file(file)
        declared = registry.collect(registry.load(plugins_section(values)))
    except (SettingsError, registry.PluginError) as error:
        click.echo(error, err=True)
        sys.exit(2)
    click.echo(json.dumps(document(declared.routes, schemas(declared.known_operations)), indent=2))


@main.command()
def plugins() -> None:
    """List the plugins that the settings load, where each comes from and what it declares."""
    from pvcd import registry
    from pvcd.settings import SettingsError, plugins_section, read_file, settings_file

    try:
        loaded = registry.load(plugins_section(read_file(settings_file())))
        for plugin in loaded:
            click.echo(f"{plugin.name} ({plugin.origin})")
            for kind, names in registry.declared_by(plugin).items():
                click.echo(f"  {kind}: {', '.join(names)}")
        registry.collect(loaded)
    except (SettingsError, registry.PluginError) as error:
        click.echo(error, err=True)
        sys.exit(2)
