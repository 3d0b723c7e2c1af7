"""The records of VMs."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from pvcd import Name, Record
from pvcd_plugins.vm.domain import UsedVolume


class State(StrEnum):
    """The states of a VM; `fail` is never requested, only shown."""

    START = "start"
    SHUTDOWN = "shutdown"
    STOP = "stop"
    RESTART = "restart"
    DISABLE = "disable"
    PROVISION = "provision"
    DELETE = "delete"
    MIGRATE = "migrate"
    UNMIGRATE = "unmigrate"
    FAIL = "fail"


class VM(Record, path="/vms/{uuid}"):
    """A virtual machine as it should be.

    `generation` counts the requests for a state: it tells a restart that was requested again from one that is done,
    and a guest that was started for this request from an earlier one.
    """

    uuid: UUID
    name: Name
    state: State = State.STOP
    generation: int = 0
    node: Name
    last_node: Name | None = None
    node_limit: tuple[Name, ...] | None = None
    node_selector: Name | None = None
    node_autostart: bool = False
    profile: str | None = None
    xml: str
    task: UUID | None = None
    """In state provision: the task that builds it."""
    delete_disks: bool = False
    """In state delete: the process that serves the request removes the volumes and then the VM, not the node."""

    @property
    def outside_limit(self) -> bool:
        """True if its node is not in its limit, which can be changed after the VM was placed."""
        return self.node_limit is not None and self.node not in self.node_limit


class VMName(Record, path="/vm-names/{name}"):
    """The name of a VM, created in one transaction with the VM so that no two have the same."""

    name: Name
    uuid: UUID


class VolumeClaim(Record, path="/vm-volumes/{pool}/{volume}"):
    """The claim of the VM whose guest writes to a volume, or was the last that did.

    It is written with each request for a guest, in one transaction with it, so that of two such requests one comes
    second and sees the other. The claim of a VM that is off does not count.
    """

    pool: Name
    volume: Name
    vm: UUID
    generation: int
    """The VM's generation when the volume was claimed."""


class MacClaim(Record, path="/mac-claims/{vni}/{mac}"):
    """The VM that has a MAC address in a network: written with its definition, so that no two VMs have one."""

    vni: int
    mac: str
    vm: UUID


class GuestUse(BaseModel):
    """The resources that a guest was started with: its VM's definition may say otherwise by now."""

    model_config = ConfigDict(frozen=True)

    interfaces: tuple[tuple[str, str], ...] = ()
    """The bridge and the MAC address of each interface at a bridge."""
    volumes: tuple[UsedVolume, ...] = ()
    memory: int = 0
    """In MiB."""
    vcpus: int = 0


class VMReport(Record, path="/vms/{uuid}/report"):
    """The report of a VM's node, which only that node writes."""

    uuid: UUID
    node: Name
    running: bool = False
    observed_generation: int = 0
    """The generation that this report was made for."""
    guest_generation: int | None = None
    """The generation that the running guest was started for."""
    guest_use: GuestUse | None = None
    """Written before the guest is started, and kept until it is gone."""
    failed_reason: str | None = None
    shutdown_since: float | None = None
    """Seconds since 1970 when the guest was asked to shut down for `observed_generation`."""
    updated: float = 0.0
