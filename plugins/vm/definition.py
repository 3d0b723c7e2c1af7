"""The rules for defining VMs, at once or, where one is provisioned, by a reservation that is completed or released."""

from __future__ import annotations

import asyncio
from uuid import UUID

from pvcd import Change, Check, Conflict, Context, Create, Delete, Invalid, NotFound, Put, retried
from pvcd_plugins.network import service as networks
from pvcd_plugins.vm import placement
from pvcd_plugins.vm.domain import Domain, as_uuid, parse, volumes
from pvcd_plugins.vm.indexes import attachments_of
from pvcd_plugins.vm.mac_claims import claim_macs, mac_claims_of
from pvcd_plugins.vm.policy import refuse_host_access
from pvcd_plugins.vm.records import VM, State, VMName, VMReport
from pvcd_plugins.vm.schema import validate
from pvcd_plugins.vm.settings import VMSettings
from pvcd_plugins.vm.volumes import claim_volumes, claims_of, write_with_volume_claims


async def check_definition(context: Context, xml: str) -> Domain:
    """Return the domain that a document describes.

    Raises `Invalid` if our rules or libvirt's schema refuse it, and `HostAccessRequired` if it reaches into the node.
    """
    domain = parse(xml)
    refuse_uuid(domain.name, "<name>")
    volumes(xml)
    await validate(xml)
    access = context.settings.of(VMSettings).access
    await asyncio.to_thread(refuse_host_access, f"Cannot define VM {domain.name!r}:", xml, access)
    return domain


def refuse_uuid(name: str, argument: str) -> None:
    """Refuse a name that looks like a UUID: a request for the VM of this UUID would name two VMs."""
    if as_uuid(name.replace("-", "")):
        raise Invalid(f"{argument} must not look like a UUID; got {name!r}.")


def refuse_taken(context: Context, name: str, uuid: UUID | None = None) -> None:
    """Refuse the name, and the UUID if one is given, of another VM."""
    if context.store.get(VMName, name):
        raise taken(name)
    if uuid is not None and context.store.get(VM, uuid):
        raise taken(name, f"UUID {uuid}")


def taken(name: str, what: str = "name") -> Conflict:
    """Return the error for a VM that has the name or UUID of another."""
    return Conflict(f"Cannot define VM {name!r}: another VM has this {what}.", code="vm-exists")


def usable_networks(context: Context, xml: str) -> list[Check]:
    """Return checks to write with a definition, which fail if one of its networks goes; raise `Invalid` without one."""
    return networks.usable(context, {bridge for bridge, _ in attachments_of(xml)})


def macs(context: Context) -> dict[str, str]:
    """Return the MAC addresses of all VMs' interfaces, each with the name of a VM."""
    return {mac: vm.name for vm in context.store.all(VM) for _, mac in attachments_of(vm.xml) if mac}


def place(context: Context, xml: str, node_limit: tuple[str, ...], selector: str | None) -> str:
    """Return the node on which a VM with this definition would be put; raise what stands in its way."""
    usable_networks(context, xml)
    limit = placement.limit_of(context, list(node_limit))[0]
    return placement.choose(context, parse(xml), wanted=None, limit=limit, selector_name=selector)[0]


@retried
async def reserve(
    context: Context,
    xml: str,
    *,
    task: UUID,
    node_limit: tuple[str, ...],
    selector: str | None,
    autostart: bool,
    profile: str,
) -> VM:
    """Remember a VM in state `provision`, which only its task changes or removes, with its volumes claimed."""
    domain = parse(xml)
    refuse_taken(context, domain.name)
    limit = placement.limit_of(context, list(node_limit))[0]
    node, _ = placement.choose(context, domain, wanted=None, limit=limit, selector_name=selector)
    vm = VM(
        uuid=domain.uuid,
        name=domain.name,
        state=State.PROVISION,
        node=node,
        node_limit=limit,
        node_selector=selector,
        node_autostart=autostart,
        profile=profile,
        xml=xml,
        task=task,
    )
    await create(context, vm, *await claim_volumes(context, vm))
    return need_vm(context, vm.uuid)


async def create(context: Context, vm: VM, *claims: Change) -> None:
    """Write a new VM with its name and MAC addresses, if its networks are there.

    Raises `MacTaken` for the address of another VM, and `Exists` for a name or UUID that is taken.
    """
    name = VMName(name=vm.name, uuid=vm.uuid)
    checks = usable_networks(context, vm.xml)
    await context.store.write(Create(name), Create(vm), *checks, *await claim_macs(context, vm), *claims)


def need_vm(context: Context, uuid: UUID) -> VM:
    """Return a VM that was written here."""
    vm = context.store.get(VM, uuid)
    if vm is None:
        raise NotFound("VM", uuid)
    return vm


@retried
async def complete(context: Context, uuid: UUID, *, start: bool) -> None:
    """Let a reserved VM be one like any other, and start it if that is wanted; no effect on one that is completed."""
    vm = await context.store.read(VM, uuid)
    if vm is None:
        raise NotFound("VM", uuid)
    if vm.state is not State.PROVISION:
        return
    if start:
        await write_with_volume_claims(context, vm.changed(state=State.START, generation=vm.generation + 1, task=None))
    else:
        await context.store.write(Put(vm.changed(state=State.STOP, task=None)))


@retried
async def release(context: Context, uuid: UUID) -> None:
    """Forget a VM that is still reserved; no effect on one that is completed or gone."""
    vm = await context.store.read(VM, uuid)
    if vm is not None and vm.state is State.PROVISION:
        name, report = await context.store.read(VMName, vm.name), await context.store.read(VMReport, uuid)
        others = [record for record in (name, report) if record]
        claims = [*claims_of(context, vm), *mac_claims_of(context, vm)]
        await context.store.write(*map(Delete, [*claims, *others, vm]))
