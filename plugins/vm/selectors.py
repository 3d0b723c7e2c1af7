"""The node selectors of the manual: the node with the lowest figure is chosen."""

from __future__ import annotations

from pvcd import Context, NodeSelector
from pvcd_plugins.node.service import fact
from pvcd_plugins.vm.indexes import ALLOCATION_INDEX


def load(context: Context, node: str) -> float:
    """Return the node's load average of one minute."""
    return float(fact(context, node, "machine").get("load", 0.0))


SELECTORS = [
    NodeSelector(
        "mem", "the node with the least allocated VM memory", lambda c, node: c[ALLOCATION_INDEX].of(node).memory
    ),
    NodeSelector(
        "vcpus", "the node with the least allocated VM vCPUs", lambda c, node: c[ALLOCATION_INDEX].of(node).vcpus
    ),
    NodeSelector("load", "the node with the least current load average", load),
    NodeSelector("vms", "the node with the least number of VMs", lambda c, node: c[ALLOCATION_INDEX].of(node).vms),
]
