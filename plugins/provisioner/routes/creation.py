"""Build VMs, and follow or cancel the tasks that do it."""

from __future__ import annotations

from typing import Annotated

from pydantic_core import to_json

from pvcd import Context, Encoded, Flag, Name, Path, Produces, Routes, Stream, Value
from pvcd_plugins.provisioner import params, service
from pvcd_plugins.provisioner.grammar import all_different
from pvcd_plugins.provisioner.views import TASK_STATES, Accepted, Line, Plan, TaskView

VMName = Annotated[Name, Value("The name of the VM", names=True)]
ProfileName = Annotated[Name, Value("The profile to build it from", names=True)]
Define = Annotated[bool | None, Flag("Define the VM at the end; by default yes", name="define_vm")]
Start = Annotated[bool | None, Flag("Start the VM at the end; by default yes, if it is defined", name="start_vm")]
Check = Annotated[bool, Flag("Dry run: return the variables with their sources, userdata, XML and steps")]
State = Annotated[str | None, Value("Only tasks in this state", choices=TASK_STATES)]
TaskId = Annotated[str, Path("Id of the task")]
After = Annotated[str, Value("Only the lines after this position")]

routes = Routes("/api/v1/provisioner", tag="Provisioner")


@routes.post("/create", operation="provisioner-create")
async def create(
    context: Context,
    name: VMName,
    profile: ProfileName,
    arguments: params.Arguments = None,
    secret_arguments: params.SecretArguments = None,
    define_vm: Define = None,
    start_vm: Start = None,
    check: Check = False,
) -> Encoded[Accepted | Plan]:
    """Build a VM from a profile. The reply comes at once, with the id of the task that builds it or, with `check`,
    with what would be done."""
    all_different([*(arguments or ()), *(secret_arguments or ())])
    given = tuple(arguments or ()), tuple(secret_arguments or ())
    request = service.request_for(name, profile, *given, define_vm, start_vm)
    if check:
        return Encoded(to_json(await service.plan(context, request)))
    accepted = await service.create_vm(context, request)
    where = f"{routes.prefix}/status/{accepted.task_id}"
    return Encoded(to_json(accepted), headers={"Location": where})


@routes.get("/status")
async def list_tasks(context: Context, limit: params.Limit = None, state: State = None) -> list[TaskView]:
    """List the tasks that match every filter, the newest first."""
    return service.list_tasks(context, limit, state)


@routes.get("/status/{task_id}")
async def get_status(context: Context, task_id: TaskId) -> TaskView:
    """Get the state of a task: PENDING, RUNNING, SUCCESS, FAILURE or CANCELLED."""
    return await service.get_status(context, task_id)


@routes.delete("/status/{task_id}", operation="provisioner-cancel")
async def cancel(context: Context, task_id: TaskId) -> TaskView:
    """Cancel a task, and undo everything that it did."""
    return await service.cancel(context, task_id)


@routes.get("/status/{task_id}/log")
async def get_log(context: Context, task_id: TaskId, after: After = "") -> list[Line]:
    """Read the lines of a task's log, a few hundred at a time."""
    return await service.read_log(context, task_id, after)


@routes.get("/status/{task_id}/log/follow")
async def follow_log(
    context: Context, task_id: TaskId, after: After = ""
) -> Annotated[Stream, Produces("text/event-stream")]:
    """Follow a task's log, as server-sent events, until the task ends."""
    return Stream(await service.follow_log(context, task_id, after), "text/event-stream")
