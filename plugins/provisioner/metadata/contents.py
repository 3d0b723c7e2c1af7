"""The metadata of a guest as trees of texts, one for EC2 and one for NoCloud: pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Union

import yaml

from pvcd_plugins.provisioner.metadata.callers import Caller
from pvcd_plugins.provisioner.records import GuestMetadata

Tree = Mapping[str, Union[str, "Tree"]]
VERSIONS = ("2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest")
"""Those that cloud-init asks for. Any other date, of newer versions of it, gets the same answers."""
_VERSION = re.compile(r"latest|1\.0|\d{4}-\d{2}-\d{2}")
_NO_HOST_NAME = re.compile(r"[^A-Za-z0-9.-]")


def tree_of(name: str, caller: Caller, metadata: GuestMetadata, zone: str) -> Tree | None:
    """Return the tree below the first part of a path, or None if there is none."""
    if name == "nocloud":
        return _nocloud(caller, metadata)
    return _ec2(caller, metadata, zone) if _VERSION.fullmatch(name) else None


def find(tree: Tree, parts: Iterable[str]) -> str | None:
    """Return the text at a path; a directory is the list of its entries. The entry `0=key` is found as `0`."""
    found: str | Tree = tree
    for part in parts:
        if isinstance(found, str):
            return None
        names = {name.partition("=")[0]: value for name, value in found.items()}
        if part not in names:
            return None
        found = names[part]
    return found if isinstance(found, str) else "\n".join(map(_listed, sorted(found.items())))


def _listed(entry: tuple[str, str | Tree]) -> str:
    name, value = entry
    return name if isinstance(value, str) or "=" in name else f"{name}/"


def _ec2(caller: Caller, metadata: GuestMetadata, zone: str) -> Tree:
    vm, arrival = caller.vm, caller.arrival
    meta_data: dict[str, str | Tree] = {
        "hostname": ".".join(filter(None, (_host(caller), caller.network.domain))),
        "instance-id": str(vm.uuid),
        "local-hostname": _host(caller),
        "local-ipv4": str(arrival.address),
        "mac": arrival.mac,
        "name": vm.name,
        "placement": {"availability-zone": zone},
        "profile": vm.profile or "",
    }
    if metadata.ssh_keys:
        keys = enumerate(metadata.ssh_keys)
        meta_data["public-keys"] = {f"{number}=key-{number}": {"openssh-key": key} for number, key in keys}
    return {"meta-data": meta_data, "user-data": metadata.userdata}


def _nocloud(caller: Caller, metadata: GuestMetadata) -> Tree:
    """Return every text that cloud-init asks for: it retries a missing one for ten seconds."""
    values: dict[str, object] = {"instance-id": str(caller.vm.uuid), "local-hostname": _host(caller)}
    if metadata.ssh_keys:
        values["public-keys"] = list(metadata.ssh_keys)
    meta_data = yaml.safe_dump(values, sort_keys=False, width=10_000)
    return {"meta-data": meta_data, "network-config": "", "user-data": metadata.userdata, "vendor-data": ""}


def _host(caller: Caller) -> str:
    """Return the name of a VM as a valid host name."""
    return _NO_HOST_NAME.sub("-", caller.vm.name)
