"""Building VMs: asked for, tried, followed and cancelled."""

from __future__ import annotations

from typing import Annotated

from pydantic_core import to_json

from pvcd import Context, Encoded, Flag, Name, Path, Produces, Routes, Stream, Value
from pvcd_plugins.provisioner import creation
from pvcd_plugins.provisioner.creation import Accepted, Line, Plan, TaskView
from pvcd_plugins.provisioner.grammar import all_different
from pvcd_plugins.provisioner.params import Arguments, Limit

VMName = Annotated[Name, Value("The name of the VM", names=True)]
ProfileName = Annotated[Name, Value("The profile that it is built from", names=True)]
Define = Annotated[bool | None, Flag("Define it in the end; by default yes", name="define_vm")]
Start = Annotated[bool | None, Flag("Start it in the end; by default yes, if it is defined", name="start_vm")]
Check = Annotated[bool, Flag("Say only what would be done: the variables with their sources, userdata, XML and steps")]
State = Annotated[str | None, Value("Only those in this state", choices=creation.STATES)]
TaskId = Annotated[str, Path("The id of the task")]
After = Annotated[str, Value("Only the lines after the one at this position")]

routes = Routes("/api/v1/provisioner", tag="Provisioner")


@routes.post("/create", operation="provisioner-create")
async def create(
    context: Context,
    name: VMName,
    profile: ProfileName,
    arguments: Arguments = None,
    define_vm: Define = None,
    start_vm: Start = None,
    check: Check = False,
) -> Encoded[Accepted | Plan]:
    """Let a VM be built from a profile. The reply comes at once, with the id of the task that does it; or, with
    `check`, with what would be done."""
    request = creation.request_for(name, profile, tuple(all_different(arguments)), define_vm, start_vm)
    if check:
        return Encoded(to_json(await creation.plan(context, request)))
    accepted = await creation.create(context, request)
    where = f"{routes.prefix}/status/{accepted.task_id}"
    return Encoded(to_json(accepted), headers={"Location": where})


@routes.get("/status")
async def list_tasks(context: Context, limit: Limit = None, state: State = None) -> list[TaskView]:
    """All tasks that are kept, the newest first, or those whose VM's name matches `limit` and that are in `state`."""
    return creation.list_tasks(context, limit, state)


@routes.get("/status/{task_id}")
async def get_status(context: Context, task_id: TaskId) -> TaskView:
    """How a task stands: `state` is PENDING, RUNNING, SUCCESS, FAILURE or CANCELLED."""
    return await creation.get_status(context, task_id)


@routes.delete("/status/{task_id}", operation="provisioner-cancel")
async def cancel(context: Context, task_id: TaskId) -> TaskView:
    """Cancel a task; all that it did is undone."""
    return await creation.cancel(context, task_id)


@routes.get("/status/{task_id}/log")
async def get_log(context: Context, task_id: TaskId, after: After = "") -> list[Line]:
    """The lines of a task's log, some hundred at a time."""
    return await creation.read_log(context, task_id, after)


@routes.get("/status/{task_id}/log/follow")
async def follow_log(
    context: Context, task_id: TaskId, after: After = ""
) -> Annotated[Stream, Produces("text/event-stream")]:
    """The lines of a task's log as they come, as server-sent events, until it is over."""
    return Stream(await creation.follow_log(context, task_id, after), "text/event-stream")
