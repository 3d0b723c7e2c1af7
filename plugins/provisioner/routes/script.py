"""Scripts."""

from __future__ import annotations

from pvcd import Context, Routes
from pvcd_plugins.provisioner import scripts, service
from pvcd_plugins.provisioner.grammar import in_path, read_name
from pvcd_plugins.provisioner.params import Limit, NameInPath, NewName, OfName, ScriptText
from pvcd_plugins.provisioner.views import VIEWS, Named, ScriptList, listed

routes = Routes("/api/v1/provisioner/script", tag="Provisioner")


@routes.get()
async def list_scripts(context: Context, limit: Limit = None, name: OfName = None) -> ScriptList:
    """The scripts that satisfy every filter, sorted by name."""
    return listed(context[VIEWS].script, limit, name)


@routes.post(operation="provisioner-script-create")
async def create_script(context: Context, name: NewName, data: ScriptText) -> Named:
    """Keep a script. It is compiled, not run, and must have an `install(**kwargs)` at its top level."""
    warnings = await scripts.check_script(context, data)
    await scripts.create_script(context, name, data)
    return Named(name=name, warnings=warnings)


@routes.put(operation="provisioner-script-modify")
async def replace_script(context: Context, name: NewName, data: ScriptText) -> Named:
    """Replace the source of a script."""
    warnings = await scripts.check_script(context, data)
    await scripts.replace_script(context, name, data)
    return Named(name=name, warnings=warnings)


@routes.get("/{name}")
async def get_script(context: Context, name: NameInPath) -> ScriptList:
    """One script, as a list of one."""
    return context[VIEWS].script.one(service.find_script(context, name))


@routes.post("/{name}", operation="provisioner-script-create")
async def create_named_script(context: Context, name: NameInPath, data: ScriptText) -> Named:
    """Keep a script, with its name in the path."""
    return await create_script(context, in_path("name", read_name, name), data)


@routes.put("/{name}", operation="provisioner-script-modify")
async def replace_named_script(context: Context, name: NameInPath, data: ScriptText) -> Named:
    """Replace the source of a script, with its name in the path."""
    return await replace_script(context, name, data)


@routes.delete("/{name}", operation="provisioner-script-remove")
async def remove_script(context: Context, name: NameInPath) -> Named:
    """Remove a script that no profile uses."""
    await scripts.remove_script(context, name)
    return Named(name=name)
