"""The rules for VMs: they check requests and write the records that the nodes act on."""

from __future__ import annotations

from uuid import UUID

from pvcd import Conflict, Context, Delete, Exists, Failed, Invalid, Message, NotFound, Put, TimedOut, retried
from pvcd_plugins.node import service as nodes
from pvcd_plugins.vm import placement, states, volumes
from pvcd_plugins.vm.definition import (
    check_definition,
    complete,
    create,
    macs,
    place,
    refuse_taken,
    refuse_uuid,
    release,
    reserve,
    taken,
    usable_networks,
)
from pvcd_plugins.vm.domain import as_uuid, parse
from pvcd_plugins.vm.indexes import NETWORK_INDEX, volumes_of
from pvcd_plugins.vm.mac_claims import claim_macs, mac_claims_of, owner_of
from pvcd_plugins.vm.records import VM, State, VMName, VMReport
from pvcd_plugins.vm.states import WANTS_GUEST, shown
from pvcd_plugins.vm.views import VMS, VMConsole, VMList, VMState
from pvcd_plugins.vm.volumes import VolumeLock, claims_of, write_with_volume_claims

# fmt: off
__all__ = [
    "NETWORK_INDEX", "VM", "State", "VMName", "VMReport", "check_definition", "complete", "find", "macs",
    "owner_of", "place", "refuse_taken", "refuse_uuid", "release", "reserve",
]
# fmt: on

REMOVAL_SECONDS = 30.0
BUSY = (State.PROVISION, State.DELETE)


def find(context: Context, key: str) -> VM:
    """Return the VM of this exact UUID or name; the UUID wins over a name that looks like it."""
    uuid, name = as_uuid(key), context.store.get(VMName, key)
    vm = context.store.get(VM, uuid) if uuid else None
    if vm is None and name:
        vm = context.store.get(VM, name.uuid)
    if vm is None:
        raise NotFound("VM", key)
    return vm


def report_of(context: Context, vm: VM) -> VMReport:
    """Return what its node reports of a VM; an empty report if there is none yet."""
    return context.store.get(VMReport, vm.uuid) or VMReport(uuid=vm.uuid, node=vm.node, observed_generation=-1)


def state_of(context: Context, vm: VM) -> State:
    """Return the state that the API shows of a VM."""
    return shown(vm, report_of(context, vm))


def get_state(context: Context, key: str) -> VMState:
    """Return the state of a VM, and whether it runs."""
    vm = find(context, key)
    return VMState(name=vm.name, state=state_of(context, vm), running=report_of(context, vm).running)


def is_off(context: Context, vm: VM) -> bool:
    """Return whether a VM should not run, and its node has reported that it does not."""
    return states.is_off(vm, context.store.get(VMReport, vm.uuid))


def get_vm(context: Context, key: str) -> VMList:
    """Return one VM, as a list of one."""
    return context[VMS].one(find(context, key))


def list_vms(context: Context, limit: str | None, node: str | None, state: State | None) -> VMList:
    """Return the VMs that satisfy all of the filters, sorted by name."""
    if limit is None and node is None and state is None:
        return context[VMS].all()
    if node is not None:
        nodes.find(context, node)
    return context[VMS].filter(
        limit,
        lambda vm: (node is None or vm.node == node) and (state is None or state_of(context, vm) is state),
    )


@retried
async def define(
    context: Context, xml: str, node: str | None, limit: list[str] | None, selector: str | None, autostart: bool
) -> Message:
    """Remember a VM, stopped, on the node that is chosen for it."""
    domain = await check_definition(context, xml)
    refuse_taken(context, domain.name, domain.uuid)
    node_limit, warnings = placement.limit_of(context, limit)
    chosen, reason = placement.choose(context, domain, wanted=node, limit=node_limit, selector_name=selector)
    warnings += placement.instead(chosen, node, reason)
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
        await create(context, vm)
    except Exists as error:
        if error.path not in (VMName.at(vm.name), VM.at(vm.uuid)):
            raise  # a claim, made at the same time
        raise taken(vm.name, "name" if error.path == VMName.at(vm.name) else f"UUID {vm.uuid}") from None
    return Message(message=f"VM {vm.name!r} defined on node {chosen!r}.", warnings=warnings or None)


@retried
async def update_metadata(
    context: Context, key: str, limit: list[str] | None, selector: str | None, autostart: bool, no_autostart: bool
) -> Message:
    """Change where and how a VM is placed; a value that is not given stays."""
    if limit is None and selector is None and not autostart and not no_autostart:
        raise Invalid("A metadata update requires at least one of limit, selector, autostart and no-autostart.")
    vm = find(context, key)
    _refuse_if_busy(context, vm)
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
        warnings.append(f"VM {vm.name!r} is on node {vm.node!r}, which is not in its limit. Migrate it.")
    await context.store.write(Put(vm))
    return Message(message=f"Metadata of VM {vm.name!r} updated.", warnings=warnings or None)


@retried
async def modify(context: Context, key: str, xml: str, restart: bool) -> Message:
    """Replace the definition of a VM; with `restart` a running one is restarted with it in the same write."""
    vm = find(context, key)
    _refuse_if_busy(context, vm)
    domain = await check_definition(context, xml)
    if (domain.name, domain.uuid) != (vm.name, vm.uuid):
        raise Invalid(
            f"The XML's name and UUID must be {vm.name!r} and {vm.uuid}, which cannot be changed; "
            f"got {domain.name!r} and {domain.uuid}."
        )
    reason = placement.misfit(context, vm.node, domain)
    if reason:
        raise Conflict(f"Cannot modify VM {vm.name!r}: {reason}.", code="no-suitable-node")
    changed = vm.changed(xml=xml)
    others = [*usable_networks(context, xml), *await claim_macs(context, changed, vm)]
    if restart and vm.state in WANTS_GUEST:
        _refuse_if_it_may_not_run(context, vm)
        await write_with_volume_claims(
            context, changed.changed(state=State.RESTART, generation=vm.generation + 1), *others
        )
        return Message(message=f"VM {vm.name!r} modified, restart requested.")
    if vm.state in WANTS_GUEST:  # its node may start it again at any time, with this definition
        await write_with_volume_claims(context, changed, *others)
    else:
        await context.store.write(Put(changed), *others)
    return Message(message=f"VM {vm.name!r} modified. The change takes effect at its next start.")


@retried
async def set_state(context: Context, key: str, wanted: State) -> Message:
    """Request a state; no effect if the VM is in it already."""
    vm = find(context, key)
    _refuse_if_busy(context, vm)
    state = state_of(context, vm)
    if wanted is state or (wanted is State.SHUTDOWN and is_off(context, vm)):
        return Message(message=f"VM {vm.name!r} is already in state {str(state)!r}.")
    if wanted is State.RESTART and vm.state not in WANTS_GUEST:
        raise Conflict(
            f"Cannot restart VM {vm.name!r}: it is in state {str(state)!r}. Start it instead.", code="vm-not-started"
        )
    if wanted is State.DISABLE and not is_off(context, vm):
        raise Conflict(
            f"Cannot disable VM {vm.name!r}: it is in state {str(state)!r}. Stop it first.", code="vm-not-stopped"
        )
    if wanted in WANTS_GUEST:
        _refuse_if_it_may_not_run(context, vm)
        await write_with_volume_claims(context, vm.changed(state=wanted, generation=vm.generation + 1))
    else:
        await context.store.write(Put(vm.changed(state=wanted, generation=vm.generation + 1)))
    late = nodes.late_warning(context, nodes.find(context, vm.node))
    return Message(message=f"State {str(wanted)!r} requested for VM {vm.name!r}.", warnings=late)


def _refuse_if_busy(context: Context, vm: VM) -> None:
    _refuse_if_built(context, vm, "change")
    if vm.state in BUSY:
        raise Conflict(
            f"Cannot change VM {vm.name!r}: it is in state {str(vm.state)!r}. Repeat the request when that is over.",
            code="vm-busy",
        )


def _refuse_if_built(context: Context, vm: VM, verb: str) -> None:
    if task := volumes.builder_of(context, vm):
        raise Conflict(
            f"Cannot {verb} VM {vm.name!r}: task {task} builds it. Wait for its end, or cancel the task first.",
            code="vm-busy",
        )


def _refuse_if_it_may_not_run(context: Context, vm: VM) -> None:
    node = nodes.find(context, vm.node)
    if node.domain_state is nodes.DomainState.FLUSH:
        raise Conflict(
            f"Cannot start VM {vm.name!r}: node {node.name!r} is in domain state "
            f"{str(nodes.domain_state(context, node))!r}. Set the node to ready first.",
            code="node-flushed",
        )
    if vm.outside_limit:
        raise Conflict(
            f"Cannot start VM {vm.name!r}: node {vm.node!r} is not in its limit. Migrate the VM first.",
            code="node-outside-limit",
        )


async def remove(context: Context, key: str, delete_disks: bool) -> Message:
    """Forcibly stop a VM, remove its volumes if asked to, and forget it; return when it is gone."""
    vm = find(context, key)
    _refuse_if_built(context, vm, "remove")
    if delete_disks and volumes_of(vm.xml):
        volumes.need_storage(context)
        return await _remove_with_disks(context, vm)
    if await _request_removal(context, key):
        gone = await context.store.wait_for(lambda: context.store.get(VM, vm.uuid) is None, REMOVAL_SECONDS)
        if not gone:
            raise TimedOut(
                f"Cannot confirm the removal of VM {vm.name!r}: node {vm.node!r} did not report it within "
                f"{REMOVAL_SECONDS:g} s. The removal continues."
            )
    return Message(message=f"VM {vm.name!r} removed.")


@retried
async def _request_removal(context: Context, key: str) -> bool:
    """Forget a VM that is off at once; else have its node do so, and return True."""
    vm = find(context, key)
    _refuse_if_built(context, vm, "remove")
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
            f"Cannot stop VM {vm.name!r}: node {vm.node!r} is in daemon state {str(daemon)!r}.", code="node-not-running"
        )


async def _remove_with_disks(context: Context, vm: VM) -> Message:
    """Stop a VM, remove its volumes, and forget it. If a volume remains, so does the VM.

    Everything is checked first, because neither the end of a guest nor that of a volume can be undone.
    """
    if not is_off(context, vm):
        _need_daemon(context, vm)
    try:
        await volumes.check_removal(context, vm)
    except Failed as error:
        raise Failed(
            f"Cannot remove VM {vm.name!r} with its volumes: {error.sentence} Nothing was changed.", code=error.code
        ) from error
    await _request_end(context, str(vm.uuid))

    def is_over() -> bool:
        current = context.store.get(VM, vm.uuid)
        return current is None or is_off(context, current)

    if not await context.store.wait_for(is_over, REMOVAL_SECONDS):
        raise TimedOut(
            f"Cannot remove VM {vm.name!r}: node {vm.node!r} did not report within {REMOVAL_SECONDS:g} s that "
            f"it is off. Repeat the request later."
        )
    try:
        warnings = await volumes.remove_volumes(context, find(context, str(vm.uuid)))
    except Failed as error:
        await _keep(context, vm.uuid)
        raise Failed(
            f"Cannot remove all volumes of VM {vm.name!r}: {error.sentence} The VM remains, stopped. "
            f"Repeat the request.",
            code=error.code,
        ) from error
    await _forget_if_there(context, vm.uuid)
    return Message(message=f"VM {vm.name!r} removed with its volumes.", warnings=warnings or None)


@retried
async def _request_end(context: Context, key: str) -> None:
    """Have a VM stopped for good, but remembered until its volumes are gone."""
    vm = find(context, key)
    _refuse_if_built(context, vm, "remove")
    off = is_off(context, vm)
    if not off:
        _need_daemon(context, vm)
    if vm.state is not State.DELETE or not vm.delete_disks:
        generation = vm.generation if off else vm.generation + 1
        await context.store.write(Put(vm.changed(state=State.DELETE, generation=generation, delete_disks=True)))


@retried
async def _keep(context: Context, uuid: UUID) -> None:
    """Turn a VM whose volumes could not be removed into a stopped one."""
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
    await context.store.catch_up()  # with claims that another server has just written
    name, report = context.store.get(VMName, vm.name), context.store.get(VMReport, vm.uuid)
    others = [record for record in (report, name) if record]
    claims = [*claims_of(context, vm), *mac_claims_of(context, vm)]
    await context.store.write(*map(Delete, [*claims, *others, vm]))


@retried
async def move(
    context: Context, key: str, action: str, node: str | None, selector: str | None, permanent: bool, force: bool
) -> Message:
    """Move a stopped VM to another node. A running one is refused."""
    vm = find(context, key)
    _refuse_if_busy(context, vm)
    back, cannot = action == "unmigrate", f"Cannot {action} VM {vm.name!r}:"
    if back and vm.last_node is None:
        raise Conflict(f"{cannot} it was not migrated.", code="vm-not-migrated")
    if not back and vm.last_node and not force and not permanent:
        raise Conflict(
            f"{cannot} it was migrated from node {vm.last_node!r} already. Use force, or unmigrate it first.",
            code="vm-migrated",
        )
    if node == vm.node:
        raise Conflict(f"{cannot} it is on node {node!r} already.", code="same-node")
    target, reason = placement.choose(
        context,
        parse(vm.xml),
        wanted=vm.last_node if back else node,
        limit=vm.node_limit,
        selector_name=vm.node_selector if selector is None else selector,
        leave=vm.node,
    )
    if back and target != vm.last_node:
        raise Conflict(f"{cannot} {reason}.", code="no-suitable-node")
    if not is_off(context, vm):
        raise Conflict(f"{cannot} it is not known to be off. Stop it first.", code="vm-not-stopped")
    last_node = None if back or permanent else vm.last_node or vm.node
    await context.store.write(Put(vm.changed(node=target, last_node=last_node)))
    return Message(
        message=f"VM {vm.name!r} moved from node {vm.node!r} to node {target!r}.",
        warnings=placement.instead(target, node, reason) or None,
    )


async def locks(context: Context, key: str) -> list[VolumeLock]:
    """Return the locks of a VM's volumes, as they are now."""
    return await volumes.locks(context, find(context, key))


async def clear_locks(context: Context, key: str) -> Message:
    """Break all locks of the volumes of a VM that is off."""
    vm = find(context, key)
    _refuse_if_busy(context, vm)
    count = await volumes.clear_locks(context, vm)
    return Message(message=f"{count} lock{'' if count == 1 else 's'} of VM {vm.name!r} broken.")


async def console(context: Context, key: str, lines: int) -> VMConsole:
    """Return the last lines of the serial log, from the node that keeps it."""
    vm = find(context, key)
    text = await context.node_commands.ask(vm.node, "vm-console", uuid=str(vm.uuid), lines=lines)
    return VMConsole(name=vm.name, data=text)
