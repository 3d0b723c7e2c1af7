"""The choice of a VM's node: one that takes VMs, is within the VM's limit, can run it, and has memory for it."""

from __future__ import annotations

from pvcd import Conflict, Context, Invalid, NodeSelector
from pvcd_plugins.node.service import Node, fact, takes_vms
from pvcd_plugins.vm.domain import Domain
from pvcd_plugins.vm.indexes import ALLOCATION_INDEX

DEFAULT_SELECTOR = "mem"


def selector(context: Context, name: str | None) -> NodeSelector:
    """Return the selector of this name, or the default one."""
    known = {one.name: one for one in context.declared(NodeSelector)}
    wanted = DEFAULT_SELECTOR if name is None else name
    if wanted not in known:
        raise Invalid(f"selector must be one of {', '.join(sorted(known))}; got {wanted!r}.")
    return known[wanted]


def limit_of(context: Context, names: list[str] | None) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the known nodes of a limit, and a warning for each unknown one; an empty list means no limit."""
    if not names:
        return None, []
    known = [name for name in dict.fromkeys(names) if context.store.get(Node, name)]
    if not known:
        raise Invalid(f"limit must name a node of this cluster; got {', '.join(map(repr, names))}.")
    return tuple(known), [f"limit: there is no node {name!r}." for name in names if name not in known]


def objection(context: Context, name: str, domain: Domain, limit: tuple[str, ...] | None) -> str | None:
    """Return why a VM cannot be put on a node, as the end of a sentence; None if it can."""
    node = context.store.get(Node, name)
    if node is None:
        return f"there is no node {name!r}"
    if limit and name not in limit:
        return f"node {name!r} is not in the VM's limit ({', '.join(limit)})"
    if not takes_vms(context, node):
        return f"node {name!r} does not take VMs now"
    free = fact(context, name, "machine").get("memory_total", 0) - context[ALLOCATION_INDEX].of(name).memory
    if domain.memory > free:
        return f"node {name!r} has {free} MiB of memory left, the VM needs {domain.memory}"
    return misfit(context, name, domain)


def misfit(context: Context, node: str, domain: Domain) -> str | None:
    """Return why a node can never run a VM, as the end of a sentence; None if it can."""
    hypervisor = fact(context, node, "hypervisor")
    if not hypervisor:
        return f"node {node!r} has not reported yet what its hypervisor can run"
    if domain.domain_type not in hypervisor["domain_types"]:
        can = ", ".join(hypervisor["domain_types"]) or "none"
        return f"node {node!r} runs domains of type {can}, not {domain.domain_type!r}"
    if domain.emulator and domain.emulator not in hypervisor["emulators"]:
        has = ", ".join(hypervisor["emulators"])
        return f"node {node!r} has no emulator {domain.emulator!r}, only {has}"
    return None


def choose(
    context: Context,
    domain: Domain,
    *,
    wanted: str | None,
    limit: tuple[str, ...] | None,
    selector_name: str | None,
    leave: str | None = None,
) -> tuple[str, str | None]:
    """Return the node for a VM: `wanted` if it is valid, else the selector's choice, and why it is not `wanted`.

    `leave` is a node that the VM is to be moved away from. Raises `Conflict` with the objection to each node.
    """
    chosen_by = selector(context, selector_name)
    objections: dict[str, str] = {}
    valid: list[str] = []
    for name in (node.name for node in context.store.all(Node)):
        reason = f"the VM is on node {name!r} already" if name == leave else objection(context, name, domain, limit)
        if reason:
            objections[name] = reason
        else:
            valid.append(name)
    if wanted in valid:
        return wanted, None
    if not valid:
        reasons = "; ".join(objections.values()) or "there are no nodes"
        raise Conflict(f"Cannot place VM {domain.name!r}: {reasons}.", code="no-suitable-node")
    best = min(valid, key=lambda name: (chosen_by.figure(context, name), context[ALLOCATION_INDEX].of(name).vms, name))
    return best, objections.get(wanted, f"there is no node {wanted!r}") if wanted else None


def instead(chosen: str, wanted: str | None, reason: str | None) -> list[str]:
    """Return the warning about another node than the wanted one, if there is a reason for it."""
    return [f"Node {chosen!r} chosen instead of {wanted!r}: {reason}."] if reason else []
