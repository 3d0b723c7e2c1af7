"""Operations of the primary that no request starts, for site hooks."""

from __future__ import annotations

from pvcd import OperationKind

LEASE = "network-lease"
OPERATIONS = [
    OperationKind(
        name=LEASE,
        doc="A host has taken, changed or given back a lease. Plain renewals are not reported.",
        place="primary",
        phases=("post",),
        arguments={
            "action": {"enum": ["taken", "ended"], "description": "What happened"},
            "vni": {"type": "integer", "description": "VNI of the network"},
            "address": {"type": "string", "description": "The IP address"},
            "mac": {"type": ["string", "null"], "description": "The host's MAC address"},
            "hostname": {"type": ["string", "null"], "description": "The host's own name for itself"},
        },
    )
]
