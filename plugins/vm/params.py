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
    str | None, Value("The node to use; if it is not valid, another one is chosen and a warning returned", name="node")
]
NodeLimit = Annotated[
    list[str] | None,
    Value("The nodes that it may run on, separated by commas; unknown ones are ignored", name="limit", separator=","),
]
Selector = Annotated[str | None, Value("How a node is chosen: mem, vcpus, load, vms, or the selector of a plugin")]
Autostart = Annotated[bool, Flag("Start the VM the next time its node becomes ready")]
NoAutostart = Annotated[bool, Flag("Do not start the VM when its node becomes ready", name="no-autostart")]
Restart = Annotated[bool, Flag("Restart a running VM with the new definition")]
DeleteDisks = Annotated[bool, Flag("Also remove the VM's Ceph volumes")]
Wanted = Annotated[State, Value("The requested state", choices=SETTABLE)]
Move = Annotated[Literal["migrate", "unmigrate"], Value("To another node, or back", choices=("migrate", "unmigrate"))]
Permanent = Annotated[bool, Flag("Do not remember the node that the VM leaves")]
Force = Annotated[bool, Flag("Migrate a VM that was already migrated; the node that it first left is kept")]
Lines = Annotated[int, Field(ge=1, le=10_000), Value("The number of lines, from the end")]
