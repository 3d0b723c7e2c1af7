"""The rules for building VMs: what may be requested, and the tasks that do it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

from pydantic_core import to_json

from pvcd import TASK_LOGS, Context, Failed, Invalid, NotFound, Task, matcher, tasks
from pvcd_plugins.provisioner.grammar import is_secret
from pvcd_plugins.provisioner.service import blueprint as blueprints
from pvcd_plugins.provisioner.service.blueprint import KIND, Blueprint, Request
from pvcd_plugins.provisioner.views import Accepted, Line, Plan, Planned, TaskView, line_view, task_view
from pvcd_plugins.vm import service as vms


def request_for(
    name: str,
    profile: str,
    arguments: tuple[str, ...],
    secrets: tuple[str, ...],
    define: bool | None,
    start: bool | None,
) -> Request:
    """Return the request for a VM. By default it is defined and, if it is defined, started."""
    if start and define is False:
        raise Invalid("start_vm requires define_vm: a VM that is not defined cannot be started.")
    define = define is not False
    plain = tuple(each for each in arguments if not is_secret(each))
    secrets += tuple(each for each in arguments if is_secret(each))
    return Request(name, profile, uuid4(), plain, define, define and start is not False, secrets)


async def create_vm(context: Context, request: Request) -> Accepted:
    """Submit a task that builds a VM. Everything that can be checked in advance is checked before it is queued."""
    blueprint = blueprints.draw(context, request)
    blueprints.verify(context, blueprint)
    await blueprints.render_userdata(context, blueprint)
    await vms.check_definition(context, blueprint.xml)
    task = await tasks.submit(context, KIND, request.name, _values(request), _secrets(request))
    return Accepted(task_id=task.id, message=f"Build of VM {request.name!r} requested: task {task.id}.")


async def plan(context: Context, request: Request) -> Plan:
    """Return what building a VM would do: a dry run, which changes nothing."""
    memory: dict[str, Any] = {}
    steps = await tasks.check(context, KIND, request.name, _values(request), memory, _secrets(request))
    blueprint: Blueprint = memory["blueprint"]
    return Plan(
        message=f"VM {request.name!r} can be built.",
        variables=blueprint.variables.shown(),
        userdata=memory["userdata"],
        xml=blueprint.xml,
        steps=[Planned(name=step.name, title=step.title, message=step.sentence) for step in steps],
    )


def list_tasks(context: Context, limit: str | None, state: str | None) -> list[TaskView]:
    """Return the tasks in a state whose VM's name matches a limit, the newest first."""
    matches = matcher(limit)
    of_kind = (task for task in context.store.all(Task) if task.kind == KIND and state in (None, task.state.upper()))
    found = [task for task in of_kind if matches((task.subject,))]
    return [task_view(task) for task in sorted(found, key=lambda task: task.created, reverse=True)]


async def get_status(context: Context, task_id: str) -> TaskView:
    """Return the state of a task."""
    return task_view(await _find(context, task_id))


async def cancel(context: Context, task_id: str) -> TaskView:
    """Cancel a task; its worker undoes what it did."""
    task = await _find(context, task_id)
    return task_view(await tasks.cancel(context, task.id))


async def read_log(context: Context, task_id: str, after: str) -> list[Line]:
    """Return the lines of a task's log after a position."""
    task = await _find(context, task_id)
    return [line_view(line) for line in await context[TASK_LOGS].read(task.id, after)]


async def follow_log(context: Context, task_id: str, after: str) -> AsyncIterator[bytes]:
    """Return the lines of a task's log as they come, as server-sent events; the last one is an `end` or an `error`."""
    task = await _find(context, task_id)
    lines = tasks.follow(context, task.id, after)

    async def events() -> AsyncIterator[bytes]:
        try:
            async for line in lines:
                yield f"id: {line.position}\ndata: {line_view(line).model_dump_json()}\n\n".encode()
        except Failed as error:
            failure = {"message": error.sentence, "code": error.code}
            yield b"event: error\ndata: " + to_json(failure) + b"\n\n"
            raise
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


def _secrets(request: Request) -> dict[str, Any]:
    return {"arguments": list(request.secrets)} if request.secrets else {}


def _values(request: Request) -> dict[str, Any]:
    return {
        "profile": request.profile,
        "uuid": str(request.uuid),
        "arguments": list(request.arguments),
        "define_vm": request.define,
        "start_vm": request.start,
    }
