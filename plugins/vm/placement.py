"""Which node a VM is put on: one that takes VMs, is within its limit, can run it, and has room for its memory."""

from __future__ import annotations

from pvcd import Conflict, Context, Invalid, NodeSelector, did_you_mean
from pvcd_plugins.node.service import Node, fact, takes_vms
from pvcd_plugins.vm.allocation import ALLOCATION_INDEX
from pvcd_plugins.vm.domain import Domain

DEFAULT_SELECTOR = "mem"


def selector(context: Context, name: str | None) -> NodeSelector:
    """The selector of this name, or the cluster's default."""
    known = {one.name: one for one in context.declared(NodeSelector)}
    wanted = DEFAULT_SELECTOR if name is None else name
    if wanted not in known:
        raise Invalid(f"selector {name!r} is not valid: {did_you_mean(wanted, known)}")
    return known[wanted]


def limit_of(context: Context, names: list[str] | None) -> tuple[tuple[str, ...] | None, list[str]]:
    """The known nodes of a limit, and a warning for each unknown one; an empty list means no limit."""
    if not names:
        return None, []
    known = [name for name in dict.fromkeys(names) if context.store.get(Node, name)]
    if not known:
        raise Invalid(f"limit names no node of this cluster: {', '.join(map(repr, names))}.")
    return tuple(known), [f"limit: there is no node {name!r}." for name in names if name not in known]


def objection(context: Context, node: Node, domain: Domain, limit: tuple[str, ...] | None) -> str | None:
    """Why a VM cannot be put on a node, as the end of a sentence; None if it can."""
    if limit and node.name not in limit:
        return f"{node.name} is not in its limit ({', '.join(limit)})"
    if not takes_vms(context, node):
        return f"{node.name} does not take VMs now"
    free = fact(context, node.name, "machine").get("memory_total", 0) - context[ALLOCATION_INDEX].of(node.name).memory
    if domain.memory > free:
        return f"{node.name} has {free} MiB left, not {domain.memory}"
    return misfit(context, node.name, domain)


def misfit(context: Context, node: str, domain: Domain) -> str | None:
    """Why a node could never run a VM, as the end of a sentence; None if it could."""
    hypervisor = fact(context, node, "hypervisor")
    if not hypervisor:
        return f"{node} does not know yet what its hypervisor can run"
    if domain.domain_type not in hypervisor["domain_types"]:
        can = ", ".join(hypervisor["domain_types"]) or "none"
        return f"{node} runs domains of type {can}, not {domain.domain_type!r}"
    if domain.emulator and domain.emulator not in hypervisor["emulators"]:
        has = ", ".join(hypervisor["emulators"])
        return f"{node} has no emulator {domain.emulator!r}, but {has}"
    return None


def choose(
    context: Context,
    domain: Domain,
    *,
    wanted: str | None,
    limit: tuple[str, ...] | None,
    selector_name: str | None,
    leave: str | None = None,
) -> tuple[str, list[str]]:
    """The node for a VM, and warnings: `wanted` if it is valid, else the selector's choice among those that are.

    `leave` is a node that the VM is to be moved away from. Raises `Conflict` with what speaks against each node.
    """
    chosen_by = selector(context, selector_name)
    objections: dict[str, str] = {}
    valid: list[str] = []
    for node in context.store.all(Node):
        reason = f"{node.name} is where it is" if node.name == leave else objection(context, node, domain, limit)
        if reason:
            objections[node.name] = reason
        else:
            valid.append(node.name)
    if wanted in valid:
        return wanted, []
    warnings = []
    if wanted:
        reason = objections.get(wanted, f"there is no node {wanted!r}")
        warnings = [f"node {wanted!r} was passed over for an automatic choice: {reason}."]
    if not valid:
        reasons = "; ".join(objections.values()) or "there are no nodes"
        raise Conflict(f"No node is suitable for VM {domain.name!r}: {reasons}.", code="no-suitable-node")
    best = min(valid, key=lambda name: (chosen_by.figure(context, name), context[ALLOCATION_INDEX].of(name).vms, name))
    return best, warnings
