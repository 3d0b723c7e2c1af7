"""The rules for scripts."""

from __future__ import annotations

from pvcd import Context, Invalid
from pvcd_plugins.provisioner.programs.inspection import INSPECTION
from pvcd_plugins.provisioner.records import Script
from pvcd_plugins.provisioner.service.catalogue import create, refuse_large, replace


async def create_script(context: Context, name: str, text: str) -> list[str]:
    """Create a script, and return Python's warnings. Raises `Invalid` if it does not compile or lacks `install()`."""
    warnings = await _check(context, text)
    await create(context, Script(name=name, script=text))
    return warnings


async def replace_script(context: Context, name: str, text: str) -> list[str]:
    """Replace the source of a script, and return Python's warnings. Raises `Invalid` like `create_script`."""
    warnings = await _check(context, text)
    await replace(context, Script, name, script=text)
    return warnings


async def _check(context: Context, text: str) -> list[str]:
    refuse_large(text)
    verdict = await context[INSPECTION].look(text)
    if verdict["mistake"]:
        raise Invalid(f"Cannot use data as a script: {verdict['mistake']}.")
    return verdict["warnings"]
