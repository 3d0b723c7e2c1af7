"""The sandbox: a whole cluster of real servers on one machine, for trying out, developing and testing."""

import click

from pvcd import PLUGIN_API_1, hookimpl
from pvcd_plugins.sandbox.command import sandbox

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_commands() -> list[click.Command]:
    """`pvcd sandbox up | status | exec | down`"""
    return [sandbox]
