"""The sandbox: a whole cluster of real servers on one machine, to try out, develop and test."""

import click

from pvcd import PLUGIN_API_1, hookimpl
from pvcd_plugins.sandbox.command import sandbox

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_commands() -> list[click.Command]:
    """Declare `pvcd sandbox up | status | exec | down`."""
    return [sandbox]
