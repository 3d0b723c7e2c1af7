"""Network templates and their nets."""

from __future__ import annotations

from pvcd import Context, Routes
from pvcd_plugins.provisioner import params, service
from pvcd_plugins.provisioner.grammar import read_vni
from pvcd_plugins.provisioner.records import NetworkTemplate
from pvcd_plugins.provisioner.views import VIEWS, Named, NamedNet, NetView, NetworkTemplateList, listed

routes = Routes("/api/v1/provisioner/template/network", tag="Provisioner")


@routes.get()
async def list_networks(
    context: Context, limit: params.Limit = None, name: params.OfName = None
) -> NetworkTemplateList:
    """List the network templates that match every filter, sorted by name."""
    return listed(context[VIEWS].network, limit, name)


@routes.post(also="/{name}", operation="provisioner-network-template-create")
async def create_network(context: Context, name: params.NewName, mac_template: params.MacTemplate = None) -> Named:
    """Create a network template: the interfaces of a VM. It has no nets at first."""
    template = NetworkTemplate(name=name, mac_template=mac_template)
    return Named(name=name, warnings=await service.create_network(context, template))


@routes.get("/{name}")
@routes.get("/{name}/net")
async def get_network(context: Context, name: params.NameInPath) -> NetworkTemplateList:
    """Get a network template with its nets, as a list of one."""
    return context[VIEWS].network.one(service.find(context, NetworkTemplate, name))


@routes.delete("/{name}", operation="provisioner-network-template-remove")
async def remove_network(context: Context, name: params.NameInPath) -> Named:
    """Remove a network template that no profile uses, with its nets."""
    await service.remove(context, NetworkTemplate, name)
    return Named(name=name)


@routes.post("/{name}/net", operation="provisioner-network-template-net-add")
async def add_net(context: Context, name: params.NameInPath, vni: params.Vni) -> NamedNet:
    """Add a net to a network template: the network of the next interface."""
    return NamedNet(name=name, vni=vni, warnings=await service.add_net(context, name, vni))


@routes.delete("/{name}/net", operation="provisioner-network-template-net-remove")
async def remove_net(context: Context, name: params.NameInPath, vni: params.Vni) -> NamedNet:
    """Remove a net from a network template."""
    return NamedNet(name=name, vni=await service.remove_net(context, name, vni))


@routes.get("/{name}/net/{vni}")
async def get_net(context: Context, name: params.NameInPath, vni: params.VniInPath) -> NetView:
    """Get a net of a network template."""
    return NetView(vni=service.find_net(service.find(context, NetworkTemplate, name), vni))


@routes.post("/{name}/net/{vni}", operation="provisioner-network-template-net-add")
async def add_named_net(context: Context, name: params.NameInPath, vni: params.VniInPath) -> NamedNet:
    """Add a net to a network template, with its VNI in the path."""
    return await add_net(context, name, read_vni(vni))


@routes.delete("/{name}/net/{vni}", operation="provisioner-network-template-net-remove")
async def remove_named_net(context: Context, name: params.NameInPath, vni: params.VniInPath) -> NamedNet:
    """Remove a net from a network template, with its VNI in the path."""
    return NamedNet(name=name, vni=await service.remove_net(context, name, vni))
