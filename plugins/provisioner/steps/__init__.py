"""The steps in which a VM is built, in their order."""

from __future__ import annotations

from pvcd import Step
from pvcd_plugins.provisioner.service.blueprint import KIND
from pvcd_plugins.provisioner.steps import disks, gather, machine

STEPS = [
    Step(KIND, "collect", 10, "Collect the configuration", run=gather.collect, check=gather.collect_check),
    Step(KIND, "verify", 20, "Check the cluster", run=gather.verify, check=gather.verify_check),
    Step(KIND, "script", 30, "Check the script", run=gather.script, check=gather.script_check),
    Step(KIND, "xml", 40, "Check the XML", run=gather.xml, check=gather.xml_check),
    Step(KIND, "define", 50, "Reserve the VM", run=machine.define, undo=machine.undefine, check=machine.define_check),
    Step(KIND, "volumes", 60, "Create the volumes", run=disks.create, undo=disks.remove, check=disks.create_check),
    Step(KIND, "map", 70, "Map the volumes", run=disks.map_volumes, undo=disks.unmap, check=disks.map_check),
    Step(KIND, "format", 80, "Make filesystems", run=disks.make_filesystems, check=disks.format_check),
    Step(KIND, "install", 90, "Mount the disks and install", run=disks.install, check=disks.install_check),
    Step(KIND, "unmap", 100, "Unmap the volumes", run=disks.unmap_all),
    Step(KIND, "start", 110, "Complete the VM", run=machine.complete, check=machine.complete_check),
]
