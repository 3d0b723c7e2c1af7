"""The rules for profiles."""

from __future__ import annotations

from pvcd import Context, Invalid, Record, retried
from pvcd_plugins.provisioner.records import (
    EMPTY,
    NetworkTemplate,
    Profile,
    Script,
    StorageTemplate,
    SystemTemplate,
    UserdataTemplate,
)
from pvcd_plugins.provisioner.service.catalogue import find, make
from pvcd_plugins.provisioner.variables import Level, arguments_of


def storage_template_of(storage_template: str | None, disk_template: str | None) -> str:
    """Return the storage template, which may be given under either name."""
    if storage_template and disk_template and storage_template != disk_template:
        raise Invalid("storage_template cannot be used with disk_template: they are two names of one argument.")
    found = storage_template or disk_template
    if found is None:
        raise Invalid("The argument 'storage_template' is missing.")
    return found


@retried
async def create_profile(context: Context, draft: Profile) -> None:
    """Create a profile of existing templates and an existing script, which cannot be removed while it exists."""
    arguments_of(Level.PROFILE, f"profile {draft.name!r}", draft.arguments)
    refers_to: list[Record] = [
        find(context, SystemTemplate, draft.system_template),
        find(context, NetworkTemplate, draft.network_template),
        find(context, StorageTemplate, draft.storage_template),
        find(context, Script, draft.script),
    ]
    if draft.userdata_template != EMPTY.name:
        refers_to.append(find(context, UserdataTemplate, draft.userdata_template))
    await make(context, draft, refers_to)
