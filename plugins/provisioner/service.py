"""The rules for what the provisioner has: what other parts of it may ask for."""

from __future__ import annotations

from pvcd import Context, NotFound
from pvcd_plugins.provisioner.records import (
    EMPTY,
    Disk,
    NetworkTemplate,
    Profile,
    Script,
    StorageTemplate,
    SystemTemplate,
    UserdataTemplate,
)
from pvcd_plugins.provisioner.settings import ProvisionerSettings

__all__ = ["Disk", "ProvisionerSettings"]


def find_system(context: Context, name: str) -> SystemTemplate:
    """The system template of this exact name."""
    found = context.store.get(SystemTemplate, name)
    if found is None:
        raise NotFound("system template", name)
    return found


def find_network(context: Context, name: str) -> NetworkTemplate:
    """The network template of this exact name."""
    found = context.store.get(NetworkTemplate, name)
    if found is None:
        raise NotFound("network template", name)
    return found


def find_storage(context: Context, name: str) -> StorageTemplate:
    """The storage template of this exact name."""
    found = context.store.get(StorageTemplate, name)
    if found is None:
        raise NotFound("storage template", name)
    return found


def find_userdata(context: Context, name: str) -> UserdataTemplate:
    """The userdata template of this exact name; `empty` is always there."""
    found = EMPTY if name == EMPTY.name else context.store.get(UserdataTemplate, name)
    if found is None:
        raise NotFound("userdata template", name)
    return found


def find_script(context: Context, name: str) -> Script:
    """The script of this exact name."""
    found = context.store.get(Script, name)
    if found is None:
        raise NotFound("script", name)
    return found


def find_profile(context: Context, name: str) -> Profile:
    """The profile of this exact name."""
    found = context.store.get(Profile, name)
    if found is None:
        raise NotFound("profile", name)
    return found
