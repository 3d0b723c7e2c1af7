"""Each argument of the VM endpoints, described once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pvcd import Document, Flag, Path, Value
from pvcd_plugins.vm.records import State
from pvcd_plugins.vm.states import SETTABLE

VMKey = Annotated[str, Path("Name or UUID of the VM")]
Xml = Annotated[str, Document("The VM as libvirt domain XML")]
Limit = Annotated[str | None, Value("A regular expression that the VM's name or UUID must match somewhere")]
OnNode = Annotated[str | None, Value("Only VMs of this node", name="node")]
InState = Annotated[State | None, Value("Only VMs in this state", name="state")]
TargetNode = Annotated[
    str | None, Value("The node to use; one that is not valid is passed over for an automatic choice", name="node")
]
NodeLimit = Annotated[
    list[str] | None,
    Value("The nodes that it may run on, separated by commas; unknown ones are ignored", name="limit", separator=","),
]
Selector = Annotated[
    str | None, Value("How a node is chosen: mem, vcpus, load or vms, or the name of a plugin's selector")
]
Autostart = Annotated[bool, Flag("Start it when its node becomes ready the next time")]
NoAutostart = Annotated[bool, Flag("Do not start it then", name="no-autostart")]
Restart = Annotated[bool, Flag("Restart it with the new definition, if it runs")]
DeleteDisks = Annotated[bool, Flag("Also remove its Ceph volumes")]
Wanted = Annotated[State, Value("The state to go to", choices=SETTABLE)]
Move = Annotated[
    Literal["migrate", "unmigrate"], Value("Away from its node, or back", choices=("migrate", "unmigrate"))
]
Permanent = Annotated[bool, Flag("Do not remember the node that it leaves")]
Force = Annotated[bool, Flag("Migrate it again although it was migrated, and keep the node it first left")]
Lines = Annotated[int, Field(ge=1, le=10_000), Value("How many of the last lines")]
