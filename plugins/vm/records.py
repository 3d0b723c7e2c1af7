"""What the cluster remembers of a virtual machine."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from pvcd import Name, Record


class State(StrEnum):
    """The words for what a VM should be; `fail` is only ever shown."""

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

    `generation` counts the requests for a state: it tells a restart that was asked for again from one that is done,
    and a guest that was started for this request from one that was there before. Only the rules in service.py write it.
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
    delete_disks: bool = False
    """In state delete: its volumes go before it does, and whoever asked for that forgets it then, not its node."""

    @property
    def outside_limit(self) -> bool:
        """Whether it is where it may not run, because its limit was changed since it came there."""
        return self.node_limit is not None and self.node not in self.node_limit


class VMName(Record, path="/vm-names/{name}"):
    """Which VM has a name: made in one transaction with the VM, so that no two have the same."""

    name: Name
    uuid: UUID


class VolumeClaim(Record, path="/vm-volumes/{pool}/{volume}"):
    """The VM whose guest writes to a volume, or was the last that did.

    It is written with each request for a guest, in one transaction with it, so that of two such requests one comes
    second and sees the other. A VM that is off stands in nobody's way.
    """

    pool: Name
    volume: Name
    vm: UUID
    generation: int
    """The VM's request that it was claimed for."""


class VMReport(Record, path="/vms/{uuid}/report"):
    """What its node says of a VM; only that node writes it."""

    uuid: UUID
    node: Name
    running: bool = False
    observed_generation: int = 0
    """The request that the node has taken up last."""
    guest_generation: int | None = None
    """The request that the running guest was started for."""
    failed_reason: str | None = None
    shutdown_since: float | None = None
    """Seconds since 1970 when the guest was asked to shut down for `observed_generation`."""
    updated: float = 0.0
