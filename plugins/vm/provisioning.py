"""VMs that are being made: reserved under their names in state `provision`, then completed, or forgotten again."""

from __future__ import annotations

from uuid import UUID

from pvcd import Changed, Conflict, Context, Create, Delete, Exists, NotFound, Put, retried
from pvcd_plugins.vm import placement
from pvcd_plugins.vm.domain import parse
from pvcd_plugins.vm.networks import attachments_of, usable
from pvcd_plugins.vm.records import VM, State, VMName, VMReport
from pvcd_plugins.vm.volumes import claims_of, write_with_volume_claims


def refuse_taken(context: Context, name: str) -> None:
    """Refuse the name of another VM."""
    if context.store.get(VMName, name):
        raise Conflict(f"There is a VM called {name!r} already.", code="vm-exists")


def macs(context: Context) -> set[str]:
    """The MAC addresses of all interfaces that there are."""
    return {mac for vm in context.store.all(VM) for _, mac in attachments_of(vm.xml) if mac}


def place(context: Context, xml: str, node_limit: tuple[str, ...], selector: str | None) -> str:
    """The node on which a VM with this definition would be put; raises what stands in its way."""
    usable(context, xml)
    limit = placement.limit_of(context, list(node_limit))[0]
    return placement.choose(context, parse(xml), wanted=None, limit=limit, selector_name=selector)[0]


@retried
async def reserve(
    context: Context, xml: str, *, node_limit: tuple[str, ...], selector: str | None, autostart: bool, profile: str
) -> VM:
    """Remember a VM that nobody can start or change before it is completed."""
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
    )
    name = VMName(name=vm.name, uuid=vm.uuid)
    try:
        await context.store.write(Create(name), Create(vm), *usable(context, xml))
    except Exists as error:
        raise Changed(error.path) from None
    return vm


@retried
async def complete(context: Context, uuid: UUID, *, start: bool) -> None:
    """Let a reserved VM be one like any other, and start it if that is wanted; fine when that was done."""
    vm = await context.store.read(VM, uuid)
    if vm is None:
        raise NotFound("VM", uuid)
    if vm.state is not State.PROVISION:
        return
    if start:
        await write_with_volume_claims(context, vm.changed(state=State.START, generation=vm.generation + 1))
    else:
        await context.store.write(Put(vm.changed(state=State.STOP)))


@retried
async def release(context: Context, uuid: UUID) -> None:
    """Forget a VM that is still reserved; fine when there is none, and one that was completed stays."""
    vm = await context.store.read(VM, uuid)
    if vm is not None and vm.state is State.PROVISION:
        name, report = await context.store.read(VMName, vm.name), await context.store.read(VMReport, uuid)
        others = [record for record in (name, report) if record]
        await context.store.write(*map(Delete, [*claims_of(context, vm), *others, vm]))
