"""`pvcd sandbox up | down | status`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, BinaryIO

import click

from pvcd.errors import PvcdError
from pvcd.sandbox import state
from pvcd.sandbox.ports import USUAL
from pvcd.sandbox.state import Phase, Server, State

ALL_RUN, NOT_ALL_RUN = 0, 3

directory_option = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/sandbox"),
    show_default=True,
    help="Where everything of the sandbox lives.",
)


def port_option(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option for the port of one server."""
    return click.option(
        f"--{name}-port",
        type=click.IntRange(1, 65535),
        help=f"The port of {name}; without it {USUAL[name]} or the next free one.",
    )


@click.group()
def sandbox() -> None:
    """A whole cluster of real servers on this machine, for trying out, developing and testing."""


@sandbox.command()
@directory_option
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/cache"),
    show_default=True,
    help="Where what is made once is kept for all sandboxes.",
)
@click.option("--detach", is_flag=True, help="Return when all is ready and leave it running in the background.")
@click.option("--tour", is_flag=True, help="Show the main job: define a small guest, start it and show its console.")
@click.option("--temporary", is_flag=True, help="Begin with an empty directory and remove it at the end.")
@click.option("--without-ceph", is_flag=True, help="Leave Ceph out, which needs about half a gigabyte of memory.")
@port_option("api")
@port_option("zookeeper")
@port_option("redis")
@port_option("ceph-mon")
def up(
    directory: Path,
    cache: Path,
    detach: bool,
    tour: bool,
    temporary: bool,
    without_ceph: bool,
    **asked: int | None,
) -> None:
    """Start the sandbox; without --detach it runs until Ctrl-C."""
    if detach and (tour or temporary):
        raise click.UsageError("--tour and --temporary are not for a detached sandbox.")
    _need_root()
    directory, cache = directory.resolve(), cache.resolve()
    if _is_up(directory):
        return
    ports = {name.removesuffix("_port").replace("_", "-"): port for name, port in asked.items()}
    if detach:
        _run(_detached(directory, cache, ports, without_ceph))
    else:
        _run(_attached(directory, cache, ports, without_ceph, tour=tour, temporary=temporary))


@sandbox.command()
@directory_option
def down(directory: Path) -> None:
    """Stop the sandbox and remove whatever runs of it, also what a killed one left behind."""
    from pvcd.sandbox import cluster

    _need_root()
    _run(cluster.end(directory.resolve(), _say))


@sandbox.command()
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(directory: Path, as_json: bool) -> None:
    """Show each server; exit status 0 if all run, 3 if not."""
    facts = describe(directory.resolve())
    click.echo(json.dumps(facts, indent=2) if as_json else _table(facts))
    sys.exit(ALL_RUN if facts["ready"] else NOT_ALL_RUN)


def describe(directory: Path) -> dict[str, Any]:
    """How the sandbox in a directory stands, for people and programs."""
    known = state.read(directory)
    up = known is not None and state.runs(known.supervisor)
    servers = [_describe_server(server) for server in known.servers] if known else []
    return {
        "directory": str(directory),
        "api": state.api_address(known.ports) if known and up and "api" in known.ports else None,
        "pid": known.supervisor.pid if known and up else None,
        "ready": up and _whole(known),
        "servers": servers,
    }


def _describe_server(server: Server) -> dict[str, Any]:
    runs = state.runs(server.process)
    return {
        "name": server.name,
        "state": str(server.phase if runs else Phase.STOPPED),
        "pid": server.process.pid if runs else None,
        "port": server.port,
        "uptime": round(time.time() - server.since, 1) if runs else None,
        "restarts": server.restarts,
    }


def _whole(known: State | None) -> bool:
    """Whether all of its servers are ready."""
    return (
        known is not None
        and known.ready
        and all(server.phase is Phase.RUNNING and state.runs(server.process) for server in known.servers)
    )


def _table(facts: dict[str, Any]) -> str:
    if not facts["servers"]:
        return f"Nothing runs in {facts['directory']}."
    rows: list[tuple[str, ...]] = [("SERVER", "STATE", "PID", "PORT", "UPTIME", "RESTARTS")]
    for server in facts["servers"]:
        uptime = None if server["uptime"] is None else f"{server['uptime']:.0f} s"
        cells = (server["name"], server["state"], server["pid"], server["port"], uptime, server["restarts"])
        rows.append(tuple("-" if cell is None else str(cell) for cell in cells))
    lines = ["{:<11} {:<9} {:>8} {:>6} {:>9} {:>9}".format(*row) for row in rows]
    return "\n".join([*lines, f"API: {facts['api']}" if facts["api"] else "Its supervisor does not run."])


def _is_up(directory: Path) -> bool:
    """Say so if it is up already; raises if it is only partly so."""
    facts = describe(directory)
    if facts["pid"] is None:
        return False
    if facts["ready"]:
        _say(f"The sandbox in {directory} is up already. API: {facts['api']}")
        return True
    waiting = ", ".join(server["name"] for server in facts["servers"] if server["state"] != Phase.RUNNING)
    raise click.ClickException(
        f"The sandbox in {directory} runs as process {facts['pid']} but is not ready"
        + (f" (not running: {waiting})" if waiting else "")
        + ": wait, or end it with `pvcd sandbox down`."
    )


async def _attached(
    directory: Path, cache: Path, ports: dict[str, int | None], without_ceph: bool, *, tour: bool, temporary: bool
) -> None:
    from pvcd.sandbox import cluster
    from pvcd.sandbox.tour import show

    servers = cluster.WITHOUT_CEPH if without_ceph else cluster.ALL
    sandbox = cluster.Sandbox(directory, cache=cache, asked=ports, only=servers, report=_say)

    async def then() -> None:
        if tour:
            await show(sandbox, _say)
        _say(f"ready: {sandbox.api}")

    if temporary:
        await cluster.remove(directory)
    try:
        await sandbox.run_until_stopped(then)
    finally:
        if temporary:
            await cluster.remove(directory)


async def _detached(directory: Path, cache: Path, ports: dict[str, int | None], without_ceph: bool) -> None:
    """Start a supervisor in the background and pass on what it says until it is ready or has ended."""
    await asyncio.to_thread(state.make, directory)
    process, log = await asyncio.to_thread(_launch, directory, cache, ports, without_ceph)
    ready = False
    try:
        with log:
            while not ready and process.poll() is None:
                await asyncio.sleep(0.05)
                known = state.read(directory)
                ready = known is not None and known.ready and known.supervisor.pid == process.pid
                click.echo(log.read(), nl=False)
            click.echo(log.read(), nl=False)
    finally:
        if not ready and process.poll() is None:
            process.terminate()
    if not ready:
        sys.exit(process.returncode or 1)


def _launch(
    directory: Path, cache: Path, ports: dict[str, int | None], without_ceph: bool
) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """The background supervisor, and its log from where it begins."""
    path = directory / "log" / "sandbox.log"
    options = ["--directory", str(directory), "--cache", str(cache)]
    options += [word for name, port in ports.items() if port for word in (f"--{name}-port", str(port))]
    options += ["--without-ceph"] if without_ceph else []
    with path.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pvcd", "sandbox", "up", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        begin = output.tell()
    log = path.open("rb")
    log.seek(begin)
    return process, log


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except PvcdError as error:
        raise click.ClickException(error.sentence) from error


def _need_root() -> None:
    if os.geteuid() != 0:
        raise click.ClickException("The sandbox starts libvirt and virtual machines: run it as root.")


def _say(text: str) -> None:
    # A terminal that went away must not keep the sandbox from stopping.
    with contextlib.suppress(OSError):
        click.echo(text)
