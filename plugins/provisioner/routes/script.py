"""Scripts."""

from __future__ import annotations

from pvcd import Context, Routes
from pvcd_plugins.provisioner import params, service
from pvcd_plugins.provisioner.records import Script
from pvcd_plugins.provisioner.views import VIEWS, Named, ScriptList, listed

routes = Routes("/api/v1/provisioner/script", tag="Provisioner")


@routes.get()
async def list_scripts(context: Context, limit: params.Limit = None, name: params.OfName = None) -> ScriptList:
    """List the scripts that match every filter, sorted by name."""
    return listed(context[VIEWS].script, limit, name)


@routes.post(also="/{name}", operation="provisioner-script-create")
async def create_script(context: Context, name: params.NewName, data: params.ScriptText) -> Named:
    """Create a script. It is compiled but not run, and must have an `install(**kwargs)` at its top level."""
    return Named(name=name, warnings=await service.create_script(context, name, data))


@routes.put(also="/{name}", operation="provisioner-script-modify")
async def replace_script(context: Context, name: params.NewName, data: params.ScriptText) -> Named:
    """Replace the source of a script."""
    return Named(name=name, warnings=await service.replace_script(context, name, data))


@routes.get("/{name}")
async def get_script(context: Context, name: params.NameInPath) -> ScriptList:
    """Get a script, as a list of one."""
    return context[VIEWS].script.one(service.find(context, Script, name))


@routes.delete("/{name}", operation="provisioner-script-remove")
async def remove_script(context: Context, name: params.NameInPath) -> Named:
    """Remove a script that no profile uses."""
    await service.remove(context, Script, name)
    return Named(name=name)
