"""The rules for nodes: what may be asked of them, and what others may know of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from pvcd import (
    Conflict,
    Context,
    Message,
    NotFound,
    OperationKind,
    Presence,
    Put,
    Refused,
    assign_primary,
    matcher,
    primary_of,
    retried,
)
from pvcd_plugins.node.records import CoordinatorState, DaemonState, DomainState, Node, NodeReport

__all__ = ["CoordinatorState", "DaemonState", "DomainState", "Node", "NodeReport"]

DRAIN = "node-drain"
"""Asked on a node that is being flushed: listeners do their share and return the names of what is still in the way."""
RESTORE = "node-restore"
"""Asked on a node that becomes ready again, in the same way."""

OPERATIONS = [
    OperationKind(
        name="node-dead",
        doc="The agent of a node is gone without a farewell: the node is dead, or cut off.",
        place="primary",
        phases=("post",),
        arguments={"node": {"type": "string", "description": "Its name"}},
    ),
    OperationKind(
        name="node-settled",
        doc="A node has come to the domain state that it was asked for.",
        place="node",
        phases=("post",),
        arguments={
            "node": {"type": "string", "description": "Its name"},
            "domain_state": {"enum": ["flushed", "ready"], "description": "The state"},
        },
    ),
]
"""What nodes do by themselves."""

SETTLED = {DomainState.FLUSH: DomainState.FLUSHED, DomainState.READY: DomainState.READY}
ON_THE_WAY = {DomainState.FLUSH: DomainState.FLUSH, DomainState.READY: DomainState.UNFLUSH}


class Vcpus(BaseModel):
    """Processors, and how many of them running VMs have."""

    total: int
    allocated: int


class Memory(BaseModel):
    """MiB; `allocated` is what running VMs have, and total is not used + free, because of caches."""

    total: int
    allocated: int
    used: int
    free: int


class NodeView(BaseModel):
    """A node as the API shows it."""

    name: str
    daemon_state: DaemonState
    coordinator_state: CoordinatorState
    domain_state: DomainState
    cpu_count: int
    kernel: str
    os: str
    arch: str
    load: float
    domains_count: int
    running_domains: list[str]
    vcpu: Vcpus
    memory: Memory


class NodeDaemonState(BaseModel):
    """The daemon state alone."""

    name: str
    daemon_state: DaemonState


class NodeCoordinatorState(BaseModel):
    """The coordinator state alone."""

    name: str
    coordinator_state: CoordinatorState


class NodeDomainState(BaseModel):
    """The domain state alone."""

    name: str
    domain_state: DomainState


def find(context: Context, name: str) -> Node:
    """The node of this exact name."""
    node = context.store.get(Node, name)
    if node is None:
        raise NotFound("node", name)
    return node


def list_nodes(context: Context, limit: str | None) -> list[NodeView]:
    """All nodes whose name matches a limit."""
    matches = matcher(limit)
    return [view(context, node) for node in context.store.all(Node) if matches((node.name,))]


def report_of(context: Context, name: str) -> NodeReport:
    """What a node last said; an empty report of a node that never did."""
    return context.store.get(NodeReport, name) or NodeReport(name=name)


def daemon_state(context: Context, node: Node) -> DaemonState:
    """What the node said, unless its session ended without a farewell: then it is dead."""
    said = report_of(context, node.name).daemon_state
    if said is not DaemonState.STOP and context.store.get(Presence, node.name) is None:
        return DaemonState.DEAD
    return said


def coordinator_state(context: Context, node: Node) -> CoordinatorState:
    """Who holds the lease is primary, another coordinator secondary, a mere hypervisor a client."""
    if not node.coordinator:
        return CoordinatorState.CLIENT
    return CoordinatorState.PRIMARY if primary_of(context.store) == node.name else CoordinatorState.SECONDARY


def domain_state(context: Context, node: Node) -> DomainState:
    """What was asked for, or what is on the way to it."""
    settled = report_of(context, node.name).settled_generation == node.generation
    return (SETTLED if settled else ON_THE_WAY)[node.domain_state]


def takes_vms(context: Context, node: Node) -> bool:
    """Whether a VM may be put on the node now."""
    return daemon_state(context, node) is DaemonState.RUN and domain_state(context, node) is DomainState.READY


def fact(context: Context, name: str, fact_name: str) -> dict[str, Any]:
    """A fact that a node published, or {}."""
    value = report_of(context, name).facts.get(fact_name)
    return value if isinstance(value, dict) else {}


def view(context: Context, node: Node) -> NodeView:
    """The node as the API shows it; what it has not said yet is 0 or empty."""
    machine, domains = fact(context, node.name, "machine"), fact(context, node.name, "domains")
    return NodeView(
        name=node.name,
        daemon_state=daemon_state(context, node),
        coordinator_state=coordinator_state(context, node),
        domain_state=domain_state(context, node),
        cpu_count=machine.get("cpu_count", 0),
        kernel=machine.get("kernel", ""),
        os=machine.get("os", ""),
        arch=machine.get("arch", ""),
        load=machine.get("load", 0.0),
        domains_count=len(domains.get("running", [])),
        running_domains=domains.get("running", []),
        vcpu=Vcpus(total=machine.get("cpu_count", 0), allocated=domains.get("vcpus", 0)),
        memory=Memory(
            total=machine.get("memory_total", 0),
            allocated=domains.get("memory", 0),
            used=machine.get("memory_used", 0),
            free=machine.get("memory_free", 0),
        ),
    )


@retried
async def set_domain_state(context: Context, name: str, wanted: DomainState) -> Message:
    """Ask a node to be flushed or ready; a request that is done already has no effect."""
    node = find(context, name)
    if node.domain_state is wanted and domain_state(context, node) is SETTLED[wanted]:
        return Message(message=f"Node {name} is {SETTLED[wanted]} already.")
    await context.store.write(Put(node.changed(domain_state=wanted, generation=node.generation + 1)))
    state = daemon_state(context, node)
    late = None if state is DaemonState.RUN else [f"Node {name} is in daemon state {state}: it will act when it runs."]
    return Message(message=f"Node {name} is asked for the domain state {wanted}.", warnings=late)


@retried
async def set_coordinator_state(context: Context, name: str, wanted: CoordinatorState) -> Message:
    """Make a node the primary, or let another coordinator be it."""
    node = find(context, name)
    if coordinator_state(context, node) is CoordinatorState.CLIENT:
        raise Refused(f"Node {name} is no coordinator, so it cannot be {wanted}.", code="not-a-coordinator")
    if coordinator_state(context, node) is wanted:
        return Message(message=f"Node {name} is {wanted} already.")
    chosen = name if wanted is CoordinatorState.PRIMARY else _other_coordinator(context, name)
    state = daemon_state(context, find(context, chosen))
    if state is not DaemonState.RUN:
        raise Conflict(f"Node {chosen} is in daemon state {state}, so it cannot be primary.", code="node-not-running")
    await assign_primary(context.store, chosen)
    return Message(message=f"Node {chosen} is made the primary.")


def _other_coordinator(context: Context, name: str) -> str:
    for node in context.store.all(Node):
        if node.coordinator and node.name != name and daemon_state(context, node) is DaemonState.RUN:
            return node.name
    raise Conflict(
        f"Node {name} is the only running coordinator: no other one could be primary.", code="no-other-coordinator"
    )
