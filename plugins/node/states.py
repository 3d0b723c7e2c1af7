"""The states of a node: what was requested of it, and what its agent reports."""

from __future__ import annotations

from typing import Any

from pvcd import Context, Presence, primary_of
from pvcd_plugins.node.records import CoordinatorState, DaemonState, DomainState, Node, NodeReport

SETTLED = {DomainState.FLUSH: DomainState.FLUSHED, DomainState.READY: DomainState.READY}
"""The domain state that is shown once a request is done."""
ON_THE_WAY = {DomainState.FLUSH: DomainState.FLUSH, DomainState.READY: DomainState.UNFLUSH}
"""The domain state that is shown until then."""


def report_of(context: Context, name: str) -> NodeReport:
    """Return a node's last report; an empty one if there is none yet."""
    return context.store.get(NodeReport, name) or NodeReport(name=name)


def fact(context: Context, name: str, fact_name: str) -> dict[str, Any]:
    """Return a fact that a node has published, or {}."""
    value = report_of(context, name).facts.get(fact_name)
    return value if isinstance(value, dict) else {}


def daemon_state(context: Context, node: Node) -> DaemonState:
    """Return the state that the agent reports; `dead` if its presence is gone and it did not report that it stopped."""
    reported = report_of(context, node.name).daemon_state
    if reported is not DaemonState.STOP and context.store.get(Presence, node.name) is None:
        return DaemonState.DEAD
    return reported


def coordinator_state(context: Context, node: Node) -> CoordinatorState:
    """Return `primary` for the holder of the lease, `secondary` for other coordinators, `client` for all others."""
    if not node.coordinator:
        return CoordinatorState.CLIENT
    return CoordinatorState.PRIMARY if primary_of(context.store) == node.name else CoordinatorState.SECONDARY


def domain_state(context: Context, node: Node) -> DomainState:
    """Return the requested domain state once it is reached, else the state on the way to it."""
    settled = report_of(context, node.name).settled_generation == node.generation
    return (SETTLED if settled else ON_THE_WAY)[node.domain_state]


def takes_vms(context: Context, node: Node) -> bool:
    """Return whether a VM may be put on the node now."""
    return daemon_state(context, node) is DaemonState.RUN and domain_state(context, node) is DomainState.READY
