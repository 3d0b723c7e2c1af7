"""All templates, and system templates."""

from __future__ import annotations

from pvcd import Context, Routes
from pvcd_plugins.provisioner import params, service
from pvcd_plugins.provisioner.records import SystemTemplate
from pvcd_plugins.provisioner.views import VIEWS, Named, SystemTemplateList, Templates, listed

routes = Routes("/api/v1/provisioner/template", tag="Provisioner")


@routes.get()
async def list_templates(context: Context, limit: params.Limit = None) -> Templates:
    """List the templates whose name matches `limit`, by kind, sorted by name."""
    return context[VIEWS].templates(limit)


@routes.get("/system")
async def list_systems(context: Context, limit: params.Limit = None, name: params.OfName = None) -> SystemTemplateList:
    """List the system templates that match every filter, sorted by name."""
    return listed(context[VIEWS].system, limit, name)


@routes.post("/system", also="/system/{name}", operation="provisioner-system-template-create")
async def create_system(
    context: Context,
    name: params.NewName,
    vcpus: params.Vcpus,
    vram: params.Vram,
    serial: params.Serial = False,
    vnc: params.Vnc = False,
    vnc_bind: params.VncBind = None,
    node_limit: params.NodeLimit = None,
    node_selector: params.NodeSelector = None,
    start_with_node: params.StartWithNode = False,
) -> Named:
    """Create a system template: processors, memory, consoles and nodes of a VM. Unknown nodes give warnings."""
    template = SystemTemplate(
        name=name,
        vcpus=vcpus,
        vram=vram,
        serial_console=serial,
        vnc=vnc,
        vnc_bind=vnc_bind,
        node_limit=tuple(dict.fromkeys(node_limit or ())),
        node_selector=node_selector,
        start_with_node=start_with_node,
    )
    return Named(name=name, warnings=await service.create_system(context, template))


@routes.get("/system/{name}")
async def get_system(context: Context, name: params.NameInPath) -> SystemTemplateList:
    """Get a system template, as a list of one."""
    return context[VIEWS].system.one(service.find(context, SystemTemplate, name))


@routes.delete("/system/{name}", operation="provisioner-system-template-remove")
async def remove_system(context: Context, name: params.NameInPath) -> Named:
    """Remove a system template that no profile uses."""
    await service.remove(context, SystemTemplate, name)
    return Named(name=name)
