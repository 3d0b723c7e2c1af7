"""Userdata templates. `empty` always exists."""

from __future__ import annotations

from pvcd import Context, Routes
from pvcd_plugins.provisioner import params, service
from pvcd_plugins.provisioner.records import UserdataTemplate
from pvcd_plugins.provisioner.views import VIEWS, Named, UserdataTemplateList, listed

routes = Routes("/api/v1/provisioner/template/userdata", tag="Provisioner")


@routes.get()
async def list_userdata(
    context: Context, limit: params.Limit = None, name: params.OfName = None
) -> UserdataTemplateList:
    """List the userdata templates that match every filter, sorted by name."""
    return listed(context[VIEWS].userdata, limit, name)


@routes.post(also="/{name}", operation="provisioner-userdata-template-create")
async def create_userdata(context: Context, name: params.NewName, data: params.UserdataText) -> Named:
    """Create a userdata template, for cloud-init. It is rendered with sample values first."""
    return Named(name=name, warnings=await service.create_userdata(context, name, data))


@routes.put(also="/{name}", operation="provisioner-userdata-template-modify")
async def replace_userdata(context: Context, name: params.NewName, data: params.UserdataText) -> Named:
    """Replace the text of a userdata template."""
    return Named(name=name, warnings=await service.replace_userdata(context, name, data))


@routes.get("/{name}")
async def get_userdata(context: Context, name: params.NameInPath) -> UserdataTemplateList:
    """Get a userdata template, as a list of one."""
    return context[VIEWS].userdata.one(service.find(context, UserdataTemplate, name))


@routes.delete("/{name}", operation="provisioner-userdata-template-remove")
async def remove_userdata(context: Context, name: params.NameInPath) -> Named:
    """Remove a userdata template that no profile uses."""
    await service.remove_userdata(context, name)
    return Named(name=name)
