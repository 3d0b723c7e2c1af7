"""Profiles."""

from __future__ import annotations

from pvcd import Context, Routes
from pvcd_plugins.provisioner import params, service
from pvcd_plugins.provisioner.grammar import all_different
from pvcd_plugins.provisioner.records import Profile
from pvcd_plugins.provisioner.views import VIEWS, Named, ProfileList, listed

routes = Routes("/api/v1/provisioner/profile", tag="Provisioner")


@routes.get()
async def list_profiles(context: Context, limit: params.Limit = None, name: params.OfName = None) -> ProfileList:
    """List the profiles that match every filter, sorted by name."""
    return listed(context[VIEWS].profile, limit, name)


@routes.post(also="/{name}", operation="provisioner-profile-create")
async def create_profile(
    context: Context,
    name: params.NewName,
    system_template: params.SystemTemplateName,
    network_template: params.NetworkTemplateName,
    userdata_template: params.UserdataTemplateName,
    script: params.ScriptName,
    storage_template: params.StorageTemplateName = None,
    disk_template: params.DiskTemplateName = None,
    arguments: params.Arguments = None,
) -> Named:
    """Create a profile: four templates, a script, and arguments for the script."""
    profile = Profile(
        name=name,
        system_template=system_template,
        network_template=network_template,
        storage_template=service.storage_template_of(storage_template, disk_template),
        userdata_template=userdata_template,
        script=script,
        arguments=all_different(arguments),
    )
    await service.create_profile(context, profile)
    return Named(name=name)


@routes.get("/{name}")
async def get_profile(context: Context, name: params.NameInPath) -> ProfileList:
    """Get a profile, as a list of one."""
    return context[VIEWS].profile.one(service.find(context, Profile, name))


@routes.delete("/{name}", operation="provisioner-profile-remove")
async def remove_profile(context: Context, name: params.NameInPath) -> Named:
    """Remove a profile. The VMs that were built from it stay."""
    await service.remove(context, Profile, name)
    return Named(name=name)
