"""The operations that nodes do by themselves, and the questions about nodes that other plugins answer."""

from __future__ import annotations

from pvcd import OperationKind

DRAIN = "node-drain"
"""Asked on a node that is being flushed: listeners clear away what is theirs, and return the names of what remains."""
RESTORE = "node-restore"
"""Asked on a node that becomes ready again: listeners bring back what is theirs, and return what remains to be done."""

OPERATIONS = [
    OperationKind(
        name="node-dead",
        doc="The agent of a node is gone and did not report that it stopped: the node is dead, or cut off.",
        place="primary",
        phases=("post",),
        arguments={"node": {"type": "string", "description": "The node's name"}},
    ),
    OperationKind(
        name="node-settled",
        doc="A node has reached the domain state that was requested.",
        place="node",
        phases=("post",),
        arguments={
            "node": {"type": "string", "description": "The node's name"},
            "domain_state": {"enum": ["flushed", "ready"], "description": "The domain state"},
        },
    ),
]
