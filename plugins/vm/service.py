"""The rules for VMs: what may be asked, and what is then written. The nodes see it and act."""

from __future__ import annotations

import asyncio
from uuid import UUID

from pvcd import Conflict, Context, Create, Delete, Exists, Failed, Invalid, Message, NotFound, Put, TimedOut, retried
from pvcd_plugins.node import service as nodes
from pvcd_plugins.vm import disks, placement, states
from pvcd_plugins.vm.disks import VolumeLock
from pvcd_plugins.vm.domain import Domain, parse, validate, volumes
from pvcd_plugins.vm.networks import NETWORK_INDEX, usable
from pvcd_plugins.vm.provisioning import complete, macs, place, refuse_taken, release, reserve
from pvcd_plugins.vm.records import VM, State, VMName, VMReport
from pvcd_plugins.vm.states import WANTS_GUEST, shown
from pvcd_plugins.vm.views import VMS, VMConsole, VMList, VMState
from pvcd_plugins.vm.volumes import claims_of, volumes_of, write_with_volume_claims

__all__ = [
    "NETWORK_INDEX",
    "VM",
    "State",
    "VMName",
    "VMReport",
    "complete",
    "find",
    "macs",
    "place",
    "refuse_taken",
    "release",
    "reserve",
]

REMOVAL_SECONDS = 30.0
BUSY = (State.PROVISION, State.DELETE)


def find(context: Context, key: str) -> VM:
    """The VM of this exact name or UUID."""
    name = context.store.get(VMName, key)
    try:
        uuid = name.uuid if name else UUID(key)
    except ValueError:
        raise NotFound("VM", key) from None
    vm = context.store.get(VM, uuid)
    if vm is None:
        raise NotFound("VM", key)
    return vm


def with_interface(context: Context, bridge: str, mac: str) -> list[VM]:
    """The VMs that have an interface with this address at a bridge: at most one, unless somebody made a mistake."""
    found = (context.store.get(VM, uuid) for uuid in context[NETWORK_INDEX].with_interface(bridge, mac))
    return [vm for vm in found if vm is not None]


def report_of(context: Context, vm: VM) -> VMReport:
    """What its node says of a VM; an empty report if it never did."""
    return context.store.get(VMReport, vm.uuid) or VMReport(uuid=vm.uuid, node=vm.node, observed_generation=-1)


def state_of(context: Context, vm: VM) -> State:
    """The state that is shown of a VM."""
    return shown(vm, report_of(context, vm))


def get_state(context: Context, key: str) -> VMState:
    """The state of a VM, and whether it runs."""
    vm = find(context, key)
    return VMState(name=vm.name, state=state_of(context, vm), running=report_of(context, vm).running)


def is_off(context: Context, vm: VM) -> bool:
    """Whether a VM's node has said that it does not run, and it should not."""
    return states.is_off(vm, context.store.get(VMReport, vm.uuid))


def get_vm(context: Context, key: str) -> VMList:
    """One VM, as a list of one."""
    return context[VMS].one(find(context, key))


def list_vms(context: Context, limit: str | None, node: str | None, state: State | None) -> VMList:
    """The VMs that satisfy all of the filters, sorted by name."""
    if limit is None and node is None and state is None:
        return context[VMS].all()
    if node is not None:
        nodes.find(context, node)
    return context[VMS].those(
        limit,
        lambda vm: (node is None or vm.node == node) and (state is None or state_of(context, vm) is state),
    )


@retried
async def define(
    context: Context, xml: str, node: str | None, limit: list[str] | None, selector: str | None, autostart: bool
) -> Message:
    """Remember a VM, stopped, on the node that is chosen for it."""
    domain = await check_definition(xml)
    if context.store.get(VMName, domain.name) or context.store.get(VM, domain.uuid):
        raise _taken(context, domain)
    node_limit, limit_warnings = placement.limit_of(context, limit)
    chosen, warnings = placement.choose(context, domain, wanted=node, limit=node_limit, selector_name=selector)
    vm = VM(
        uuid=domain.uuid,
        name=domain.name,
        node=chosen,
        node_limit=node_limit,
        node_selector=selector,
        node_autostart=autostart,
        xml=xml,
    )
    try:
        await context.store.write(Create(VMName(name=vm.name, uuid=vm.uuid)), Create(vm), *usable(context, xml))
    except Exists:
        raise _taken(context, domain) from None
    return Message(
        message=f"VM {vm.name} ({vm.uuid}) is defined on node {chosen}.", warnings=limit_warnings + warnings or None
    )


async def check_definition(xml: str) -> Domain:
    """What a document says, once it is known to be strict and to fit libvirt's schema."""
    domain = parse(xml)
    volumes(xml)
    await asyncio.to_thread(validate, xml)
    return domain


def _taken(context: Context, domain: Domain) -> Conflict:
    if context.store.get(VMName, domain.name):
        return Conflict(f"There is a VM called {domain.name!r} already.", code="vm-exists")
    return Conflict(f"There is a VM with the UUID {domain.uuid} already.", code="vm-exists")


@retried
async def update_metadata(
    context: Context, key: str, limit: list[str] | None, selector: str | None, autostart: bool, no_autostart: bool
) -> Message:
    """Change where and how a VM is placed; what is not given stays."""
    if limit is None and selector is None and not autostart and not no_autostart:
        raise Invalid("At least one of limit, selector, autostart and no-autostart must be given.")
    vm = find(context, key)
    changes: dict[str, object] = {}
    warnings: list[str] = []
    if limit is not None:
        changes["node_limit"], warnings = placement.limit_of(context, limit)
    if selector is not None:
        changes["node_selector"] = placement.selector(context, selector).name
    if autostart or no_autostart:
        changes["node_autostart"] = not no_autostart
    vm = vm.changed(**changes)
    if limit is not None and vm.outside_limit:
        warnings.append(f"VM {vm.name} is on node {vm.node}, which is not in its limit: migrate it.")
    await context.store.write(Put(vm))
    return Message(message=f"The metadata of VM {vm.name} is updated.", warnings=warnings or None)


@retried
async def modify(context: Context, key: str, xml: str, restart: bool) -> Message:
    """Replace the definition of a VM; with `restart` a running one is restarted with it in the same write."""
    vm = find(context, key)
    _refuse_if_busy(vm)
    domain = await check_definition(xml)
    if (domain.name, domain.uuid) != (vm.name, vm.uuid):
        raise Invalid(
            f"The XML is that of {domain.name} ({domain.uuid}): the name and UUID of VM {vm.name} ({vm.uuid}) "
            f"cannot be changed."
        )
    reason = placement.misfit(context, vm.node, domain)
    if reason:
        raise Conflict(f"VM {vm.name} could not run with this XML: {reason}.", code="no-suitable-node")
    in_use = usable(context, xml)
    if restart and vm.state in WANTS_GUEST:
        _refuse_if_it_may_not_run(context, vm)
        await write_with_volume_claims(
            context, vm.changed(xml=xml, state=State.RESTART, generation=vm.generation + 1), *in_use
        )
        return Message(message=f"VM {vm.name} is modified and restarts.")
    if vm.state in WANTS_GUEST:  # it may be started anew at any time, with what it is now
        await write_with_volume_claims(context, vm.changed(xml=xml), *in_use)
    else:
        await context.store.write(Put(vm.changed(xml=xml)), *in_use)
    return Message(message=f"VM {vm.name} is modified; the change counts from its next start.")


@retried
async def set_state(context: Context, key: str, wanted: State) -> Message:
    """Ask for a state; asking for the one that holds has no effect."""
    vm = find(context, key)
    _refuse_if_busy(vm)
    state = state_of(context, vm)
    if wanted is state or (wanted is State.SHUTDOWN and is_off(context, vm)):
        return Message(message=f"VM {vm.name} is in state {state} already.")
    if wanted is State.RESTART and vm.state not in WANTS_GUEST:
        raise Conflict(f"VM {vm.name} is in state {state}: only a started one can be restarted.", code="vm-not-started")
    if wanted is State.DISABLE and not is_off(context, vm):
        raise Conflict(f"VM {vm.name} is in state {state}: stop it before it is disabled.", code="vm-not-stopped")
    if wanted in WANTS_GUEST:
        _refuse_if_it_may_not_run(context, vm)
        await write_with_volume_claims(context, vm.changed(state=wanted, generation=vm.generation + 1))
    else:
        await context.store.write(Put(vm.changed(state=wanted, generation=vm.generation + 1)))
    daemon = nodes.daemon_state(context, nodes.find(context, vm.node))
    warnings = (
        None
        if daemon is nodes.DaemonState.RUN
        else [f"Node {vm.node} is in daemon state {daemon}: it will act when it runs."]
    )
    return Message(message=f"VM {vm.name} is asked for the state {wanted}.", warnings=warnings)


def _refuse_if_busy(vm: VM) -> None:
    if vm.state in BUSY:
        raise Conflict(f"VM {vm.name} is in state {vm.state}: wait until that is over.", code="vm-busy")


def _refuse_if_it_may_not_run(context: Context, vm: VM) -> None:
    node = nodes.find(context, vm.node)
    if node.domain_state is nodes.DomainState.FLUSH:
        raise Conflict(f"Node {node.name} is being kept clear of VMs: set it to ready first.", code="node-flushed")
    if vm.outside_limit:
        raise Conflict(
            f"VM {vm.name} is on node {vm.node}, which is not in its limit: migrate it first.",
            code="node-outside-limit",
        )


async def remove(context: Context, key: str, delete_disks: bool) -> Message:
    """Forcibly stop a VM and forget it, after its volumes if they go too; returns when it is gone."""
    vm = find(context, key)
    if delete_disks and volumes_of(vm.xml):
        disks.need_storage(context)
        return await _remove_with_disks(context, vm)
    if await _ask_for_removal(context, key):
        gone = await context.store.wait_for(lambda: context.store.get(VM, vm.uuid) is None, REMOVAL_SECONDS)
        if not gone:
            raise TimedOut(f"VM {vm.name} is being removed, but node {vm.node} has not said so yet.")
    return Message(message=f"VM {vm.name} is removed.")


@retried
async def _ask_for_removal(context: Context, key: str) -> bool:
    """Forget a VM that is off at once; else ask its node, and return True."""
    vm = find(context, key)
    if is_off(context, vm):
        await forget(context, vm)
        return False
    _need_daemon(context, vm)
    if vm.state is not State.DELETE or vm.delete_disks:
        await context.store.write(Put(vm.changed(state=State.DELETE, generation=vm.generation + 1, delete_disks=False)))
    return True


def _need_daemon(context: Context, vm: VM) -> None:
    daemon = nodes.daemon_state(context, nodes.find(context, vm.node))
    if daemon is not nodes.DaemonState.RUN:
        raise Conflict(
            f"VM {vm.name} cannot be stopped: its node {vm.node} is in daemon state {daemon}.", code="node-not-running"
        )


async def _remove_with_disks(context: Context, vm: VM) -> Message:
    """Stop a VM, remove its volumes, and forget it; when a volume stays, the VM does so too, and it can be repeated."""
    await _ask_for_end(context, str(vm.uuid))

    def is_over() -> bool:
        current = context.store.get(VM, vm.uuid)
        return current is None or is_off(context, current)

    if not await context.store.wait_for(is_over, REMOVAL_SECONDS):
        raise TimedOut(
            f"VM {vm.name} is asked to stop, but node {vm.node} has not said so yet: repeat the request later."
        )
    try:
        warnings = await disks.remove_volumes(context, find(context, str(vm.uuid)))
    except Failed as error:
        await _keep(context, vm.uuid)
        raise Failed(
            f"VM {vm.name} is stopped but not removed, for these volumes could not be: {error.sentence}",
            code=error.code,
        ) from error
    await _forget_if_there(context, vm.uuid)
    return Message(message=f"VM {vm.name} is removed with its volumes.", warnings=warnings or None)


@retried
async def _ask_for_end(context: Context, key: str) -> None:
    """Let a VM stop for good, but be remembered until its volumes are gone."""
    vm = find(context, key)
    off = is_off(context, vm)
    if not off:
        _need_daemon(context, vm)
    if vm.state is not State.DELETE or not vm.delete_disks:
        generation = vm.generation if off else vm.generation + 1
        await context.store.write(Put(vm.changed(state=State.DELETE, generation=generation, delete_disks=True)))


@retried
async def _keep(context: Context, uuid: UUID) -> None:
    """Let a VM be one that is stopped."""
    vm = context.store.get(VM, uuid)
    if vm is not None and vm.delete_disks:
        await context.store.write(Put(vm.changed(state=State.STOP, delete_disks=False)))


@retried
async def _forget_if_there(context: Context, uuid: UUID) -> None:
    vm = context.store.get(VM, uuid)
    if vm is not None:
        await forget(context, vm)


async def forget(context: Context, vm: VM) -> None:
    """Remove all records of a VM that does not run."""
    name, report = context.store.get(VMName, vm.name), context.store.get(VMReport, vm.uuid)
    others = [record for record in (report, name) if record]
    await context.store.write(*map(Delete, [*claims_of(context, vm), *others, vm]))


@retried
async def move(
    context: Context,
    key: str,
    action: str,
    node: str | None,
    selector: str | None,
    permanent: bool,
    force: bool,
) -> Message:
    """Give a stopped VM to another node. A running one stays: moving it needs storage that both nodes reach."""
    vm = find(context, key)
    _refuse_if_busy(vm)
    if action == "unmigrate" and vm.last_node is None:
        raise Conflict(f"VM {vm.name} was not migrated, so there is nowhere to go back to.", code="vm-not-migrated")
    if action == "migrate" and vm.last_node and not force and not permanent:
        raise Conflict(
            f"VM {vm.name} was migrated from {vm.last_node} already: use force, or unmigrate it.", code="vm-migrated"
        )
    if node == vm.node:
        raise Conflict(f"VM {vm.name} is on node {node} already.", code="same-node")
    target, warnings = placement.choose(
        context,
        parse(vm.xml),
        wanted=vm.last_node if action == "unmigrate" else node,
        limit=vm.node_limit,
        selector_name=vm.node_selector if selector is None else selector,
        leave=vm.node,
    )
    if action == "unmigrate" and target != vm.last_node:
        raise Conflict(f"VM {vm.name} cannot go back: {warnings[0]}", code="no-suitable-node")
    if not is_off(context, vm):
        raise Conflict(f"VM {vm.name} runs: stop it before it is moved to {target}.", code="vm-not-stopped")
    keeps_track = action == "migrate" and not permanent
    await context.store.write(
        Put(vm.changed(node=target, last_node=(vm.last_node or vm.node) if keeps_track else None))
    )
    return Message(message=f"VM {vm.name} is moved from {vm.node} to {target}.", warnings=warnings or None)


async def locks(context: Context, key: str) -> list[VolumeLock]:
    """The locks of a VM's volumes, as they are now."""
    return await disks.locks(context, find(context, key))


async def clear_locks(context: Context, key: str) -> Message:
    """Break all locks of the volumes of a VM that is off."""
    vm = find(context, key)
    count = await disks.clear_locks(context, vm)
    return Message(message=f"VM {vm.name} had {count} lock{'' if count == 1 else 's'}, and has none now.")


async def console(context: Context, key: str, lines: int) -> VMConsole:
    """The last lines of the serial log, from the node that keeps it."""
    vm = find(context, key)
    text = await context.node_commands.ask(vm.node, "vm-console", uuid=str(vm.uuid), lines=lines)
    return VMConsole(name=vm.name, data=text)
