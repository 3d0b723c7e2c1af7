"""Templates, scripts and profiles, which only the API writes, and the metadata of the guests built from them."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from pvcd import Name, Record


class Counter(Record, path="/provisioner/counter"):
    """The last id. Every creation writes it, so that a removal can check that nothing was created meanwhile: see
    service/catalogue.py."""

    last: int = 0


class Numbered(Record):
    """A record with a name, by which it is found, and an id."""

    kind: ClassVar[str]
    """As sentences name it. With `_` for blanks it is the field in which a profile names one, and with `-` it begins
    the codes of errors."""
    id: int = 0
    name: Name


class SystemTemplate(Numbered, path="/provisioner/system/{name}"):
    """Processors, memory in MiB and consoles of a VM, and the nodes that it may run on."""

    kind = "system template"
    vcpus: int
    vram: int
    serial_console: bool = False
    vnc: bool = False
    vnc_bind: str | None = None
    node_limit: tuple[Name, ...] = ()
    """Empty for all nodes; they need not exist yet."""
    node_selector: str | None = None
    start_with_node: bool = False


class NetworkTemplate(Numbered, path="/provisioner/network/{name}"):
    """The networks of a VM by VNI, in the order of its interfaces; they need not exist yet."""

    kind = "network template"
    mac_template: str | None = None
    networks: tuple[int, ...] = ()


class Disk(BaseModel):
    """A disk: of a given size, or a copy of another volume of its pool."""

    model_config = ConfigDict(frozen=True)

    id: int
    disk_id: str
    pool: Name
    disk_size_gb: int | None = None
    source_volume: Name | None = None
    filesystem: str | None = None
    filesystem_args: tuple[str, ...] = ()
    """Each is `-x=value` or `--option=value`, without blanks."""
    mountpoint: str | None = None
    """Absolute and normalized, without `..`."""


class StorageTemplate(Numbered, path="/provisioner/storage/{name}"):
    """The disks of a VM, sorted by id; the pools and volumes need not exist yet."""

    kind = "storage template"
    disks: tuple[Disk, ...] = ()


class UserdataTemplate(Numbered, path="/provisioner/userdata/{name}"):
    """Userdata for cloud-init: a Jinja2 template, which was rendered with sample values before it was written."""

    kind = "userdata template"
    userdata: str


EMPTY = UserdataTemplate(name="empty", userdata="")
"""The one that always exists, though it is not in the store."""


class Script(Numbered, path="/provisioner/script/{name}"):
    """The Python source of an `install(**kwargs)`; compiled before it was written, but not run."""

    kind = "script"
    script: str


class GuestMetadata(Record, path="/provisioner/vms/{uuid}"):
    """Userdata and SSH keys that the metadata API gives to a VM. Its task writes it; it is removed with the VM."""

    uuid: UUID
    userdata: str = ""
    """Rendered with the variables of this VM."""
    ssh_keys: tuple[str, ...] = ()
    """Each as in a line of `authorized_keys`."""


class Profile(Numbered, path="/provisioner/profile/{name}"):
    """Templates, a script and its arguments, from which VMs are built. What a profile names cannot be removed."""

    kind = "profile"
    system_template: Name
    network_template: Name
    storage_template: Name
    userdata_template: Name
    script: Name
    arguments: tuple[str, ...] = ()
    """Each is `key=value`; the key is a Python identifier."""
