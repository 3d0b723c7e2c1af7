"""The rules for profiles."""

from __future__ import annotations

from pvcd import Conflict, Context, Invalid, Record, retried
from pvcd_plugins.provisioner.catalogue import make, remove
from pvcd_plugins.provisioner.records import EMPTY, Profile
from pvcd_plugins.provisioner.service import (
    find_network,
    find_profile,
    find_script,
    find_storage,
    find_system,
    find_userdata,
)
from pvcd_plugins.provisioner.variables import Level, arguments_of


def one_of(storage_template: str | None, disk_template: str | None) -> str:
    """The storage template, which has two names."""
    if storage_template and disk_template and storage_template != disk_template:
        raise Invalid("storage_template and disk_template are the same thing: give one of them.")
    found = storage_template or disk_template
    if found is None:
        raise Invalid("The argument 'storage_template' is missing.")
    return found


@retried
async def create_profile(context: Context, draft: Profile) -> None:
    """Make a profile of templates and a script that are there, and stay there as long as it does."""
    arguments_of(Level.PROFILE, f"profile {draft.name!r}", draft.arguments)
    refers_to: list[Record] = [
        find_system(context, draft.system_template),
        find_network(context, draft.network_template),
        find_storage(context, draft.storage_template),
        find_script(context, draft.script),
    ]
    if draft.userdata_template != EMPTY.name:
        refers_to.append(find_userdata(context, draft.userdata_template))
    await make(
        context, draft, Conflict(f"There is a profile {draft.name!r} already.", code="profile-exists"), refers_to
    )


async def remove_profile(context: Context, name: str) -> None:
    """Remove a profile; what was built from it stays."""
    await remove(context, find_profile, name)
