"""A trial of a plugin in a simulated cluster: good and bad requests, watched, then a stop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints
from urllib.parse import quote
from uuid import UUID

from pydantic import ValidationError

from pvcd.daemon.components import make_context, open_components
from pvcd.declare.context import Component, Role
from pvcd.http.parameters import Parameter, Place
from pvcd.http.routes import Route
from pvcd.store.memory import MemoryTree
from pvcd.testing import NoFake, Reply, SimulatedCluster
from pvcd.testing.watchdog import Watchdog

NODE = "hv1"
START_SECONDS = 30.0
"""Time for the cluster to start, and to stop."""
ANSWER_SECONDS = 120.0
"""Simulated time for an answer."""
USUAL = (NODE, "1", "true", "10.0.0.1", "10.0.0.0/24", "52:54:00:00:00:01", str(UUID(int=1)), "1G")
"""Values for arguments: the first that fits is used."""
WORDS = ". .. ../../etc/passwd / + %s%n -1 0 1e309 NaN 0x10 null true [] {} {{7*7}} <script> * ((( hv1,hv1 ' $(id) `id`"
HOSTILE = ("", " ", "a b", "\0", "\r\nX-Evil: 1", "\x1b[2J", "9" * 400, "\u00e9" * 300, "x" * 70_000, *WORDS.split())
UNKNOWN = "no-such-argument"
ORDER = ("POST", "PUT", "GET", "DELETE")


def run(
    module: ModuleType, code: Path, routes: Sequence[Route], components: Sequence[Component[Any]]
) -> dict[str, list[str]]:
    """Return the complaints of each check; `code` is the file or folder of the plugin."""
    threads = set(threading.enumerate())
    try:
        found = asyncio.run(_run(module, code, routes, components))
    except NoFake as error:
        return {"trial": [error.sentence]}
    except Exception as error:
        return {"trial": [f"it ended the trial: {type(error).__name__}: {error}."]}
    left = [thread.name for thread in set(threading.enumerate()) - threads]
    found["stop"] += [f"the thread {name} still runs after the stop." for name in left]
    return found


async def _run(
    module: ModuleType, code: Path, routes: Sequence[Route], components: Sequence[Component[Any]]
) -> dict[str, list[str]]:
    with _tracebacks(code) as tracebacks, Watchdog(code) as watchdog:
        cluster = SimulatedCluster([NODE], [module], keepalive={"interval": 1})
        async with _both_in_time(cluster):
            await cluster.advance(2)
            differences = [each async for each in _doors(cluster, components)]
            faults = await _answers(cluster, routes)
    await asyncio.sleep(0)
    left = [task.get_coro() for task in asyncio.all_tasks() - {asyncio.current_task()}]
    return {
        "doors": differences,
        "answers": faults,
        "tracebacks": tracebacks,
        "blocking": [f"{function} blocks the event loop." for function in watchdog.seen],
        "stop": [f"{getattr(work, '__qualname__', work)}() still runs after the stop." for work in left],
    }


@contextlib.asynccontextmanager
async def _both_in_time(cluster: SimulatedCluster) -> AsyncIterator[None]:
    """Start and stop the cluster within a limit of time."""
    async with asyncio.timeout(START_SECONDS):
        await cluster.__aenter__()
    try:
        yield
    finally:
        async with asyncio.timeout(START_SECONDS):
            await cluster.__aexit__(None, None, None)


@contextlib.contextmanager
def _tracebacks(code: Path) -> Iterator[list[str]]:
    """Collect what is logged with a traceback through the code."""
    found: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            frames = traceback.extract_tb(error.__traceback__ if error else None)
            if any(Path(frame.filename).is_relative_to(code) for frame in frames):
                found.append(f"{record.getMessage()}: {type(error).__name__}: {error}.")

    ear = Ear()
    logging.getLogger().addHandler(ear)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(ear)


# Doors


async def _doors(cluster: SimulatedCluster, components: Sequence[Component[Any]]) -> AsyncIterator[str]:
    """Check that each fake has all verbs of its door, the type in the annotation of `open`."""
    worker = make_context(
        Role.WORKER, cluster.settings, cluster.registry, MemoryTree(cluster.server), cluster.clock, NODE
    )
    await worker.store.open()
    try:
        async with open_components(worker):
            opened = worker.components | cluster.api.components | cluster.agents[NODE].components
            fakes = {key.name: fake for key, fake in opened.items()}
            for component in components:
                if component.fake is not None:
                    for difference in _differences(component, fakes[component.name]):
                        yield difference
    finally:
        await worker.store.close()


def _differences(component: Component[Any], fake: object) -> Iterator[str]:
    door = _door(component.open)
    if door is None or component.fake is None or door is not _door(component.fake):
        yield f"`open` and `fake` of the component {component.name} must be annotated with the same type."
        return
    for verb, declared in inspect.getmembers(door, inspect.isfunction):
        offered = getattr(fake, verb, None)
        if verb.startswith("_"):
            continue
        if offered is None:
            yield f"the fake of the component {component.name} has no {verb}()."
        elif (wanted := _arguments(declared, "self")) != (given := _arguments(offered)):
            yield f"{verb}() of the component {component.name} takes {wanted}, but that of its fake {given}."


def _door(opening: Callable[..., Any]) -> Any:
    return next(iter(get_args(get_type_hints(inspect.unwrap(opening)).get("return"))), None)


def _arguments(function: Callable[..., Any], *but: str) -> str:
    parameters = inspect.signature(function).parameters.values()
    return str(inspect.Signature([each.replace(annotation=each.empty) for each in parameters if each.name not in but]))


# Answers


async def _answers(cluster: SimulatedCluster, routes: Sequence[Route]) -> list[str]:
    """Send good requests, let handlers and tasks run, then send bad ones."""
    in_order = sorted(routes, key=lambda route: ORDER.index(route.method))
    asked = [route for route in in_order if "Stream" not in str(route.returns)]
    found: dict[str, str] = {}
    for requests in (_good(asked), _bad(asked)):
        for route, arguments in requests:
            for fault in await _ask(cluster, route, arguments):
                found.setdefault(fault, f"{arguments!r:.100}")
        await cluster.advance(5)
        await cluster.finish_tasks()
    return [f"{fault} The arguments were {example}." for fault, example in found.items()]


def _good(routes: Sequence[Route]) -> Iterator[tuple[Route, dict[str, str]]]:
    """Yield good requests for all routes that remove nothing."""
    return ((route, _usual(route)) for route in routes if route.method != "DELETE")


def _bad(routes: Sequence[Route]) -> Iterator[tuple[Route, dict[str, str]]]:
    """Yield requests with an unknown argument, and with each hostile value of each argument."""
    for route in routes:
        yield route, _usual(route) | {UNKNOWN: "x"}
        yield from ((route, _usual(route) | {each.key: value}) for each in route.parameters for value in HOSTILE)


def _usual(route: Route) -> dict[str, str]:
    """Return values for all arguments that a route needs, by their keys."""
    return {each.key: _fitting(each) for each in route.parameters if each.required or each.place is Place.PATH}


def _fitting(parameter: Parameter) -> str:
    for value in (*parameter.choices, *USUAL):
        with contextlib.suppress(ValidationError):
            parameter.adapter.validate_python([value] if parameter.many else value)
            return value
    return USUAL[0]


async def _ask(cluster: SimulatedCluster, route: Route, arguments: Mapping[str, str]) -> list[str]:
    """Send a request; return the faults of the answer."""
    places = {each.key: each.place for each in route.parameters}
    names = {each.key: each.name for each in route.parameters}
    parts = {key: quote(value, safe="") for key, value in arguments.items() if places.get(key) is Place.PATH}
    values = {names.get(key, key): value for key, value in arguments.items() if key not in parts}
    asking = asyncio.ensure_future(cluster.request(route.method, route.path.format(**parts), **values))
    end = cluster.clock.time() + ANSWER_SECONDS
    while not (await asyncio.wait([asking], timeout=0.02))[0]:
        await cluster.advance(1)
        if cluster.clock.time() > end:
            asking.cancel()
            return [f"{route.name} does not answer within {ANSWER_SECONDS:g} s."]
    return list(_faults(route, asking.result(), UNKNOWN in arguments))


def _faults(route: Route, reply: Reply, refused: bool) -> Iterator[str]:
    if reply.status == 500 or b"Traceback" in reply.body:
        yield f"{route.name} fails with an internal error instead of refusing a value."
    elif reply.status >= 400:
        try:
            if not {"message", "code"} <= set(reply.json):
                yield f"{route.name} fails without a message and a code."
        except ValueError:
            yield f"{route.name} fails without JSON."
    elif refused:
        yield f"{route.name} accepts unknown arguments."
