"""The rules for scripts."""

from __future__ import annotations

from pvcd import Conflict, Context, Invalid, retried
from pvcd_plugins.provisioner.catalogue import make, refuse_large, remove, replace
from pvcd_plugins.provisioner.inspection import INSPECTION
from pvcd_plugins.provisioner.records import Script
from pvcd_plugins.provisioner.service import find_script


async def check_script(context: Context, text: str) -> list[str]:
    """Python's warnings about a script; `Invalid` if it is none, or has no install(**kwargs)."""
    refuse_large(text)
    verdict = await context[INSPECTION].look(text)
    if verdict["mistake"]:
        raise Invalid(f"data is no script that can be used: {verdict['mistake']}.")
    return verdict["warnings"]


@retried
async def create_script(context: Context, name: str, text: str) -> None:
    """Keep a script that was checked."""
    taken = Conflict(f"There is a script {name!r} already.", code="script-exists")
    await make(context, Script(name=name, script=text), taken)


async def replace_script(context: Context, name: str, text: str) -> None:
    """Put a script that was checked in the place of another."""
    await replace(context, find_script, name, script=text)


async def remove_script(context: Context, name: str) -> None:
    """Remove a script that no profile uses."""
    await remove(context, find_script, name, "script")
