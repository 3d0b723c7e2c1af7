"""The steps that only look: what is to be built, and whether it can be."""

from __future__ import annotations

import asyncio
import shutil
from uuid import UUID

from pvcd import Failed, Outcome, Run
from pvcd_plugins.provisioner import blueprint as blueprints
from pvcd_plugins.provisioner.blueprint import Blueprint, Request, draw
from pvcd_plugins.provisioner.inspection import INSPECTION
from pvcd_plugins.provisioner.userdata import RENDERING
from pvcd_plugins.provisioner.volumes import MKFS
from pvcd_plugins.vm import service as vms


def request_of(run: Run) -> Request:
    """What the task was asked for."""
    values = run.task.values
    return Request(
        name=run.task.subject,
        profile=values["profile"],
        uuid=UUID(values["uuid"]),
        arguments=tuple(values["arguments"]),
        define=values["define_vm"],
        start=values["start_vm"],
    )


def blueprint_of(run: Run) -> Blueprint:
    """What an earlier step has drawn."""
    found: Blueprint = run.memory["blueprint"]
    return found


async def collect(run: Run) -> Outcome:
    """Put together what the profile names, and render the userdata."""
    return Outcome("ok", await collect_check(run))


async def collect_check(run: Run) -> str:
    """What was collected."""
    blueprint = draw(run.context, request_of(run))
    run.memory["blueprint"] = blueprint
    rendering = run.context[RENDERING]
    run.memory["userdata"] = await rendering.render(blueprint.userdata.userdata, blueprint.variables.values())
    return f"{blueprint.request.name} is built from the profile {blueprint.profile.name}."


async def verify(run: Run) -> Outcome:
    """See whether the cluster, and this machine, have what is needed."""
    sentence = await verify_check(run)
    tools = {MKFS[disk.filesystem][0] for disk in blueprint_of(run).disks if disk.filesystem}
    missing = [tool for tool in sorted(tools) if not await asyncio.to_thread(shutil.which, tool)]
    if missing:
        raise Failed(f"This worker has no program {', '.join(missing)}: install it.", code="program-missing")
    return Outcome("ok", sentence)


async def verify_check(run: Run) -> str:
    """Where it would be put."""
    node = blueprints.verify(run.context, blueprint_of(run))
    return f"It has room on {node}."


async def script(run: Run) -> Outcome:
    """See once more that the script can be run."""
    return Outcome("ok", await script_check(run))


async def script_check(run: Run) -> str:
    """Which script is run."""
    found = blueprint_of(run).script
    verdict = await run.context[INSPECTION].look(found.script)
    if verdict["mistake"]:
        raise Failed(f"The script {found.name} cannot be run: {verdict['mistake']}.")
    return f"The script {found.name} is run."


async def xml(run: Run) -> Outcome:
    """See that libvirt would take the definition."""
    return Outcome("ok", await xml_check(run))


async def xml_check(run: Run) -> str:
    """What the VM would be."""
    blueprint = blueprint_of(run)
    await vms.check_definition(blueprint.xml)
    return f"It has {blueprint.system.vcpus} vCPUs, {blueprint.system.vram} MiB and {len(blueprint.disks)} disks."
