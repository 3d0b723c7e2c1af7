"""The rules for building VMs: what may be asked for, and what there is to see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, get_args
from uuid import UUID, uuid4

from pydantic import BaseModel

from pvcd import TASK_LOGS, Context, Invalid, LogLine, NotFound, StepRecord, Task, TaskState, matcher, tasks
from pvcd_plugins.provisioner import blueprint as blueprints
from pvcd_plugins.provisioner.blueprint import Request
from pvcd_plugins.provisioner.steps import KIND
from pvcd_plugins.provisioner.userdata import RENDERING
from pvcd_plugins.vm import service as vms

OVER = ("ok", "changed", "skipped")
STATES = tuple(state.upper() for state in get_args(TaskState))
"""Of tasks, as they are shown."""


class Accepted(BaseModel):
    """A task that was made."""

    task_id: UUID
    message: str


class StepView(BaseModel):
    """A step of a task, and how it ended; times are seconds since 1970."""

    name: str
    title: str
    state: str
    message: str
    started: float | None
    ended: float | None


class TaskView(BaseModel):
    """A task: the manual's four fields, and all else that is known of it."""

    state: str
    current: int
    total: int
    status: str
    task_id: UUID
    name: str
    profile: str
    created: float
    started: float | None
    ended: float | None
    worker: str | None
    steps: list[StepView]
    left: list[str]
    """What could not be removed when it was undone."""


class Planned(BaseModel):
    """What a step would do."""

    name: str
    title: str
    message: str


class Plan(BaseModel):
    """What a task would do; nothing of it is done."""

    message: str
    variables: list[dict[str, Any]]
    userdata: str
    xml: str
    steps: list[Planned]


class Line(BaseModel):
    """A line of a log; to go on after it, give its position."""

    position: str
    time: float
    text: str


def _values(request: Request) -> dict[str, Any]:
    return {
        "profile": request.profile,
        "uuid": str(request.uuid),
        "arguments": list(request.arguments),
        "define_vm": request.define,
        "start_vm": request.start,
    }


def request_for(
    name: str, profile: str, arguments: tuple[str, ...], define: bool | None, start: bool | None
) -> Request:
    """What is asked for; a VM that is started is defined, too."""
    if start and define is False:
        raise Invalid("start_vm needs define_vm: a VM that is not defined cannot be started.")
    define = define is not False
    return Request(name, profile, uuid4(), arguments, define, define and start is not False)


async def create(context: Context, request: Request) -> Accepted:
    """Let a VM be built. What can be known to be wrong is refused before anything is queued."""
    blueprint = blueprints.draw(context, request)
    blueprints.verify(context, blueprint)
    await context[RENDERING].render(blueprint.userdata.userdata, blueprint.variables.values())
    await vms.check_definition(blueprint.xml)
    task = await tasks.submit(context, KIND, request.name, _values(request))
    return Accepted(task_id=task.id, message=f"VM {request.name} is being built by task {task.id}.")


async def plan(context: Context, request: Request) -> Plan:
    """What building a VM would do."""
    blueprint = blueprints.draw(context, request)
    steps = await tasks.check(context, KIND, request.name, _values(request))
    userdata = await context[RENDERING].render(blueprint.userdata.userdata, blueprint.variables.values())
    return Plan(
        message=f"VM {request.name} can be built.",
        variables=blueprint.variables.shown(),
        userdata=userdata,
        xml=blueprint.xml,
        steps=[Planned(name=step.name, title=step.title, message=step.sentence) for step in steps],
    )


def list_tasks(context: Context, limit: str | None, state: str | None) -> list[TaskView]:
    """The tasks whose VM's name matches a limit, in a state, the newest first."""
    matches = matcher(limit)
    tasks = (task for task in context.store.all(Task) if task.kind == KIND and state in (None, task.state.upper()))
    found = [task for task in tasks if matches((task.subject,))]
    return [_view(task) for task in sorted(found, key=lambda task: task.created, reverse=True)]


async def get_status(context: Context, task_id: str) -> TaskView:
    """How a task stands."""
    return _view(await _find(context, task_id))


async def cancel(context: Context, task_id: str) -> TaskView:
    """Let a task end, and all that it did be undone."""
    task = await _find(context, task_id)
    return _view(await tasks.cancel(context, task.id))


async def read_log(context: Context, task_id: str, after: str) -> list[Line]:
    """The lines of a task's log after a position."""
    task = await _find(context, task_id)
    return [_line(line) for line in await context[TASK_LOGS].read(task.id, after)]


async def follow_log(context: Context, task_id: str, after: str) -> AsyncIterator[bytes]:
    """The lines of a task's log as they come, as server-sent events."""
    task = await _find(context, task_id)

    async def events() -> AsyncIterator[bytes]:
        async for line in tasks.follow(context, task.id, after):
            yield f"id: {line.position}\ndata: {_line(line).model_dump_json()}\n\n".encode()
        yield b"event: end\ndata: {}\n\n"

    return events()


async def _find(context: Context, task_id: str) -> Task:
    try:
        task = await tasks.find(context, UUID(task_id))
    except ValueError:
        raise NotFound("task", task_id) from None
    if task.kind != KIND:
        raise NotFound("task", task_id)
    return task


def _line(line: LogLine) -> Line:
    return Line(position=line.position, time=line.time, text=line.text)


def _view(task: Task) -> TaskView:
    done = sum(step.state in OVER for step in task.steps)
    return TaskView(
        state=task.state.upper(),
        current=done,
        total=len(task.steps),
        status=task.sentence or _doing(task.steps),
        task_id=task.id,
        name=task.subject,
        profile=task.values["profile"],
        created=task.created,
        started=task.started,
        ended=task.ended,
        worker=task.worker,
        steps=[_step(step) for step in task.steps],
        left=list(task.left),
    )


def _step(step: StepRecord) -> StepView:
    return StepView(
        name=step.name,
        title=step.title,
        state=step.state,
        message=step.sentence,
        started=step.started,
        ended=step.ended,
    )


def _doing(steps: tuple[StepRecord, ...]) -> str:
    running = next((step for step in steps if step.state == "running"), None)
    return f"{running.title}." if running else "It waits for a worker."
