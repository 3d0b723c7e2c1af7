"""The steps that collect what is to be built, and check that it can be built."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from pvcd import Failed, Outcome, Run
from pvcd_plugins.provisioner.filesystems import mkfs
from pvcd_plugins.provisioner.programs.inspection import INSPECTION
from pvcd_plugins.provisioner.service import blueprint as blueprints
from pvcd_plugins.provisioner.service.blueprint import Blueprint, Request, draw
from pvcd_plugins.vm import service as vms


def request_of(run: Run) -> Request:
    """Return the request of the task, without its secrets."""
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
    """Return the blueprint that the first step has drawn."""
    found: Blueprint = run.memory["blueprint"]
    return found


async def collect(run: Run) -> Outcome:
    """Draw the blueprint, and render the userdata."""
    return Outcome("ok", await collect_check(run))


async def collect_check(run: Run) -> str:
    """Draw the blueprint, and render the userdata, which changes nothing."""
    secrets = tuple((await run.secrets()).get("arguments", ()))
    blueprint = draw(run.context, replace(request_of(run), secrets=secrets))
    run.memory["blueprint"] = blueprint
    run.memory["userdata"] = await blueprints.render_userdata(run.context, blueprint)
    return f"VM {blueprint.request.name!r} from profile {blueprint.profile.name!r}."


async def verify(run: Run) -> Outcome:
    """Check that the cluster and this machine have what is needed."""
    sentence = await verify_check(run)
    formatted = [(disk.filesystem, disk.filesystem_args) for disk in blueprint_of(run).disks if disk.filesystem]
    tools = {mkfs(Path(os.devnull), filesystem, arguments)[0] for filesystem, arguments in formatted}
    missing = [tool for tool in sorted(tools) if not await asyncio.to_thread(shutil.which, tool)]
    if missing:
        raise Failed(
            f"Cannot make filesystems: this machine has no {', '.join(missing)}. Install it.", code="program-missing"
        )
    return Outcome("ok", sentence)


async def verify_check(run: Run) -> str:
    """Check that the cluster has what is needed."""
    node = blueprints.verify(run.context, blueprint_of(run))
    return f"Node {node!r} has room for it."


async def script(run: Run) -> Outcome:
    """Check again that the script can be run."""
    return Outcome("ok", await script_check(run))


async def script_check(run: Run) -> str:
    """Check that the script can be run."""
    found = blueprint_of(run).script
    verdict = await run.context[INSPECTION].look(found.script)
    if verdict["mistake"]:
        raise Failed(f"Cannot run script {found.name!r}: {verdict['mistake']}.")
    return f"Script {found.name!r}."


async def xml(run: Run) -> Outcome:
    """Check that libvirt would accept the definition."""
    return Outcome("ok", await xml_check(run))


async def xml_check(run: Run) -> str:
    """Check that libvirt would accept the definition."""
    blueprint = blueprint_of(run)
    await vms.check_definition(run.context, blueprint.xml)
    return f"{blueprint.system.vcpus} vCPUs, {blueprint.system.vram} MiB of memory, {len(blueprint.disks)} disks."
