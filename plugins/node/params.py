"""Each argument of the node endpoints, described once."""

from __future__ import annotations

from typing import Annotated

from pvcd import Path, Value
from pvcd_plugins.node.records import CoordinatorState, DomainState

NodeName = Annotated[str, Path("Name of the node")]
Limit = Annotated[str | None, Value("A regular expression that the node's name must match somewhere")]
WantedDomainState = Annotated[
    DomainState,
    Value("`flush` clears the node of VMs, `ready` brings them back", name="domain-state", choices=("flush", "ready")),
]
WantedCoordinatorState = Annotated[
    CoordinatorState,
    Value("The part in leading the cluster", name="coordinator-state", choices=("primary", "secondary")),
]
