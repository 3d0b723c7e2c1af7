"""A node as the API shows it."""

from __future__ import annotations

from pydantic import BaseModel

from pvcd import Context
from pvcd_plugins.node.records import CoordinatorState, DaemonState, DomainState, Node
from pvcd_plugins.node.states import coordinator_state, daemon_state, domain_state, fact


class Vcpus(BaseModel):
    """The node's logical CPUs, and how many vCPUs its running VMs have."""

    total: int
    allocated: int


class Memory(BaseModel):
    """MiB. `allocated` is what running VMs have; total is more than used + free, because of caches."""

    total: int
    allocated: int
    used: int
    free: int


class NodeView(BaseModel):
    """A node; what it has not reported yet is 0 or empty."""

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


def node_view(context: Context, node: Node) -> NodeView:
    """Return the node as the API shows it."""
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
