"""What the cluster remembers of the provisioner: templates, scripts and profiles. Only the API writes them."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from pvcd import Name, Record


class Counter(Record, path="/provisioner/counter"):
    """The last id. It is written along with everything that is made here, so that whoever removes something can see
    that nothing was made meanwhile: see catalogue.py."""

    last: int = 0


class Numbered(Record):
    """What is found by its name, and also has a number of its own."""

    id: int = 0
    name: Name


class SystemTemplate(Numbered, path="/provisioner/system/{name}"):
    """What a VM is: processors, memory in MiB, consoles, and where it may run."""

    vcpus: int
    vram: int
    serial_console: bool = False
    vnc: bool = False
    vnc_bind: str | None = None
    node_limit: tuple[Name, ...] = ()
    """Empty for all nodes; some of them may be unknown."""
    node_selector: str | None = None
    start_with_node: bool = False


class NetworkTemplate(Numbered, path="/provisioner/network/{name}"):
    """The networks of a VM by VNI, in the order of its interfaces; they need not exist yet."""

    mac_template: str | None = None
    networks: tuple[int, ...] = ()


class Disk(BaseModel):
    """A disk: either of a size, or a copy of another volume of its pool."""

    model_config = ConfigDict(frozen=True)

    id: int
    disk_id: str
    pool: Name
    disk_size_gb: int | None = None
    source_volume: Name | None = None
    filesystem: str | None = None
    filesystem_args: tuple[str, ...] = ()
    """Each is `-x=value` or `--option=value`: one word without blanks."""
    mountpoint: str | None = None
    """Absolute and normalised, without `..`."""


class StorageTemplate(Numbered, path="/provisioner/storage/{name}"):
    """The disks of a VM, sorted by their ids; the pools and volumes need not exist yet."""

    disks: tuple[Disk, ...] = ()


class UserdataTemplate(Numbered, path="/provisioner/userdata/{name}"):
    """What cloud-init is told, a template itself; it was rendered with sample values before it was written."""

    userdata: str


EMPTY = UserdataTemplate(name="empty", userdata="")
"""The one that is always there, though it is not in the store."""


class Script(Numbered, path="/provisioner/script/{name}"):
    """The Python source of an `install(**kwargs)`; it was compiled before it was written, and never run."""

    script: str


class Built(Record, path="/provisioner/vms/{uuid}"):
    """What a VM that was built is told by the metadata API. Written by its task, and removed with it or with the VM."""

    uuid: UUID
    userdata: str = ""
    """Rendered with the variables of this VM."""
    ssh_keys: tuple[str, ...] = ()


class Profile(Numbered, path="/provisioner/profile/{name}"):
    """What VMs are built from. All that it names is there, for as long as it is there itself."""

    system_template: Name
    network_template: Name
    storage_template: Name
    userdata_template: Name
    script: Name
    arguments: tuple[str, ...] = ()
    """Each is `key=value`; the key is a word that Python could call an argument."""
