"""A VM as the API shows it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from pydantic import BaseModel

from pvcd import Component, ComponentKey, Context, Encoded, Invalid, Record, Role, View
from pvcd_plugins.network.service import Lease
from pvcd_plugins.vm.domain import Controller, Disk, Domain, Network, parse
from pvcd_plugins.vm.indexes import NETWORK_INDEX, NetworkIndex
from pvcd_plugins.vm.placement import DEFAULT_SELECTOR
from pvcd_plugins.vm.records import VM, State, VMReport
from pvcd_plugins.vm.states import shown


class NetworkView(Network):
    """One network interface, with the addresses that it has leased."""

    ip4_address: IPv4Address | None = None
    ip6_address: IPv6Address | None = None


class VMView(BaseModel):
    """A VM: as it should be, by its node's report, and by its definition. Memory is in MiB."""

    name: str
    uuid: UUID
    state: State
    running: bool
    node: str
    last_node: str | None
    migrated: str
    failed_reason: str | None
    updated: float | None
    """Seconds since 1970 of the node's last report."""
    node_limit: list[str] | None
    node_selector: str
    node_autostart: bool
    description: str | None
    profile: str | None
    memory: int
    vcpu: int
    vcpu_topology: str | None
    type: str | None
    arch: str | None
    machine: str | None
    console: str | None
    emulator: str | None
    features: list[str]
    networks: list[NetworkView]
    disks: list[Disk]
    controllers: list[Controller]
    xml: str


VMList = Encoded[list[VMView]]
"""VMs, already encoded."""


class VMState(BaseModel):
    """The state alone, and whether it runs."""

    name: str
    state: State
    running: bool


class VMNode(BaseModel):
    """The node of a VM, and the one that it was migrated from."""

    name: str
    node: str
    last_node: str | None


class VMConsole(BaseModel):
    """The last lines of a VM's serial console."""

    name: str
    data: str


def render(vm: VM, report: VMReport | None, attachments: NetworkIndex) -> VMView:
    """Return the VM with its node's report and the leases of its interfaces."""
    reason = report.failed_reason if report else None
    try:
        domain = parse(vm.xml)
    except Invalid as error:  # one such VM must not hide all others
        domain, reason = _unknown(vm), error.sentence
    return VMView(
        name=vm.name,
        uuid=vm.uuid,
        state=shown(vm, report),
        running=report.running if report else False,
        node=vm.node,
        last_node=vm.last_node,
        migrated=f"from {vm.last_node}" if vm.last_node else "no",
        failed_reason=reason,
        updated=report.updated if report else None,
        node_limit=list(vm.node_limit) if vm.node_limit else None,
        node_selector=vm.node_selector or DEFAULT_SELECTOR,
        node_autostart=vm.node_autostart,
        profile=vm.profile,
        xml=vm.xml,
        networks=[_interface(network, attachments) for network in domain.networks],
        **domain.model_dump(exclude={"name", "uuid", "domain_type", "networks"}),
    )


def _interface(network: Network, attachments: NetworkIndex) -> NetworkView:
    addresses = [lease.address for lease in attachments.leases(network.source, network.mac)]
    return NetworkView(
        **network.model_dump(),
        ip4_address=next((each for each in addresses if isinstance(each, IPv4Address)), None),
        ip6_address=next((each for each in addresses if isinstance(each, IPv6Address)), None),
    )


def _unknown(vm: VM) -> Domain:
    """Return what is known of a VM whose definition cannot be read."""
    return Domain.model_validate(
        {field: None for field in Domain.model_fields}
        | {"name": vm.name, "uuid": vm.uuid, "domain_type": "", "memory": 0, "vcpu": 0}
        | dict.fromkeys(("features", "networks", "disks", "controllers"), ())
    )


class VMViews(View[VM, VMView]):
    """All VMs, encoded; unlike other views they also depend on the leases of their interfaces."""

    def __init__(self, context: Context) -> None:
        store, self._attachments = context.store, context[NETWORK_INDEX]
        super().__init__(
            store,
            VM,
            lambda vm: render(vm, store.get(VMReport, vm.uuid), self._attachments),
            lambda vm: (vm.name, str(vm.uuid)),
        )

    def _changed(self, path: str, old: Record | None, new: Record | None) -> None:
        for lease in (old, new):
            for uuid in self._attachments.of(lease) if isinstance(lease, Lease) else ():
                super()._changed(VM.at(uuid), None, None)
        super()._changed(path, old, new)


@contextlib.asynccontextmanager
async def open_view(context: Context) -> AsyncIterator[View[VM, VMView]]:
    """All VMs, encoded, sorted by name."""
    view = VMViews(context)
    try:
        yield view
    finally:
        view.close()


VMS: ComponentKey[View[VM, VMView]] = ComponentKey("vms")
COMPONENT = Component(VMS, open_view, roles=(Role.API,), needs=(NETWORK_INDEX,), in_memory=True)
