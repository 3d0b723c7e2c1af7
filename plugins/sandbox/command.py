"""`pvcd sandbox up | down | status | exec`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import click

from pvcd import PvcdError
from pvcd_plugins.sandbox import state
from pvcd_plugins.sandbox.ports import USUAL
from pvcd_plugins.sandbox.state import Phase, Server, State

ALL_RUN, NOT_ALL_RUN = 0, 3

directory_option = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/sandbox"),
    show_default=True,
    help="The directory that holds the whole sandbox.",
)


def port_option(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for the port of one server."""
    return click.option(
        f"--{name}-port",
        type=click.IntRange(1, 65535),
        help=f"The port of {name}; default: {USUAL[name]}, or the next free one.",
    )


@click.group()
def sandbox() -> None:
    """Run a whole cluster of real servers on this machine, to try out, develop and test."""


@sandbox.command()
@directory_option
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/cache"),
    show_default=True,
    help="The directory for files that all sandboxes share, such as the guest's kernel.",
)
@click.option("--detach", is_flag=True, help="Return when the sandbox is ready; it keeps running in the background.")
@click.option("--tour", is_flag=True, help="Demonstrate it: build and start a small guest from a profile.")
@click.option("--temporary", is_flag=True, help="Start with an empty directory and remove it at the end.")
@click.option(
    "--host-network",
    is_flag=True,
    help="Use this host's network instead of a network namespace.",
)
@click.option(
    "--vm-files",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Let VMs use the files below this directory of the host; may be repeated.",
)
@click.option("--without-ceph", is_flag=True, help="Leave out Ceph, which takes about half a gigabyte of memory.")
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
    host_network: bool,
    without_ceph: bool,
    vm_files: tuple[Path, ...],
    **requested: int | None,
) -> None:
    """Start the sandbox; without --detach it runs until Ctrl-C."""
    if detach and (tour or temporary):
        raise click.UsageError("--detach cannot be used with --tour or --temporary: both need the foreground.")
    _need_root()
    directory, cache = directory.resolve(), cache.resolve()
    if _is_up(directory):
        return
    ports = {name.removesuffix("_port").replace("_", "-"): port for name, port in requested.items()}
    files = tuple(Path(os.path.abspath(each)) for each in vm_files)
    plan = _Plan(directory, cache, ports, files, without_ceph=without_ceph, host_network=host_network)
    if detach:
        _run(lambda: _detached(plan))
    else:
        _attached(plan, tour=tour, temporary=temporary)


@sandbox.command("exec", context_settings={"ignore_unknown_options": True})
@directory_option
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(directory: Path, program: tuple[str, ...]) -> None:
    """Run a program in the sandbox's network and with its settings, such as `ping 10.20.0.10` or `ceph -s`.

    Write `--` before a program if it has an option that `exec` has too, such as `--help`.
    """
    from pvcd_plugins.sandbox import network

    _need_root()
    known = state.read(directory.resolve())
    if known is None or not state.runs(known.supervisor):
        raise click.ClickException(
            f"Cannot run {program[0]!r}: no sandbox runs in {directory}. Start one with `pvcd sandbox up`."
        )
    with _errors_as_sentences():
        network.join(known.supervisor.pid)
    environment = os.environ | _settings(directory.resolve(), known)
    try:
        os.execvpe(program[0], program, environment)  # noqa: S606 - an argument vector, and no shell is wanted
    except OSError as error:
        raise click.ClickException(f"Cannot run {program[0]!r}: {error.strerror}.") from error


def _settings(directory: Path, known: State) -> dict[str, str]:
    """Return the environment in which pvcd and the programs of Ceph, if the sandbox has it, find the sandbox."""
    from pvcd_plugins.sandbox import ceph, cluster

    found = {"PVC_CONFIG_FILE": str(directory / "pvc-api.yaml")}
    if any(server.name == ceph.MON for server in known.servers):
        found["CEPH_CONF"] = str(ceph.conf(directory / cluster.CEPH))
    return found


@sandbox.command()
@directory_option
def down(directory: Path) -> None:
    """Stop the sandbox and end all of its processes, also those that a killed sandbox left behind."""
    from pvcd_plugins.sandbox import cluster

    _need_root()
    _run(lambda: cluster.end(directory.resolve(), _say))


@sandbox.command()
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(directory: Path, as_json: bool) -> None:
    """Show each server. The exit status is 0 if all servers run, else 3."""
    with _errors_as_sentences():
        facts = describe(directory.resolve())
    click.echo(json.dumps(facts, indent=2) if as_json else _table(facts))
    sys.exit(ALL_RUN if facts["ready"] else NOT_ALL_RUN)


def describe(directory: Path) -> dict[str, Any]:
    """Return the state of the sandbox in a directory, as `status --json` prints it."""
    known = state.read(directory)
    up = known is not None and state.runs(known.supervisor)
    servers = [_describe_server(server) for server in known.servers] if known else []
    return {
        "directory": str(directory),
        "api": state.api_address(known.ports) if known and up and "api" in known.ports else None,
        "pid": known.supervisor.pid if known and up else None,
        "ready": up and _all_ready(known),
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


def _all_ready(known: State | None) -> bool:
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
    return "\n".join([*lines, f"API: {facts['api']}" if facts["api"] else "The supervisor does not run."])


def _is_up(directory: Path) -> bool:
    """Return whether the sandbox is up, and say so; raise if only a part of it is."""
    facts = describe(directory)
    if facts["pid"] is None:
        return False
    if facts["ready"]:
        _say(f"The sandbox in {directory} is already up. API: {facts['api']}")
        return True
    waiting = ", ".join(server["name"] for server in facts["servers"] if server["state"] != Phase.RUNNING)
    raise click.ClickException(
        f"Cannot start the sandbox in {directory}: it runs as process {facts['pid']} but is not ready"
        + (f" (not running: {waiting})" if waiting else "")
        + ". Wait, or stop it with `pvcd sandbox down`."
    )


@dataclass(frozen=True)
class _Plan:
    """The options of `up`."""

    directory: Path
    cache: Path
    ports: dict[str, int | None]
    vm_files: tuple[Path, ...]
    without_ceph: bool
    host_network: bool

    def options(self) -> list[str]:
        """Return the command-line options that request the same of another process."""
        flags = {"--without-ceph": self.without_ceph, "--host-network": self.host_network}
        ports = [(f"--{name}-port", str(port)) for name, port in self.ports.items() if port]
        places = ["--directory", str(self.directory), "--cache", str(self.cache)]
        files = [("--vm-files", str(each)) for each in self.vm_files]
        return [*places, *chain(*ports, *files), *(flag for flag, on in flags.items() if on)]


def _attached(plan: _Plan, *, tour: bool, temporary: bool) -> None:
    """Run the sandbox until a signal stops it."""
    from pvcd_plugins.sandbox import cluster, network, ports
    from pvcd_plugins.sandbox.tour import show

    listener = None
    requested = dict(plan.ports)
    if not plan.host_network:
        with _errors_as_sentences():
            port = ports.choose_one("api", requested.get("api"))
            requested["api"], listener = port, network.listen(port)
            network.enter()
    servers = cluster.WITHOUT_CEPH if plan.without_ceph else cluster.ALL

    async def work() -> None:
        if temporary:
            await cluster.remove(plan.directory)
        sandbox = cluster.Sandbox(
            plan.directory,
            cache=plan.cache,
            requested_ports=requested,
            only=servers,
            listener=listener,
            vm_files=plan.vm_files,
            report=_say,
        )

        async def then() -> None:
            if tour:
                await show(sandbox, _say)
            _say(f"ready: {sandbox.api}")

        try:
            await sandbox.run_until_stopped(then)
        finally:
            if temporary:
                await cluster.remove(plan.directory)

    _run(work)


async def _detached(plan: _Plan) -> None:
    """Start a supervisor in the background and print its output until it is ready or has ended."""
    await asyncio.to_thread(state.make, plan.directory)
    process, log = await asyncio.to_thread(_launch, plan)
    ready = False
    try:
        with log:
            while not ready and process.poll() is None:
                await asyncio.sleep(0.05)
                known = state.read(plan.directory)
                ready = known is not None and known.ready and known.supervisor.pid == process.pid
                click.echo(log.read(), nl=False)
            click.echo(log.read(), nl=False)
    finally:
        if not ready and process.poll() is None:
            process.terminate()
    if not ready:
        sys.exit(process.returncode or 1)


def _launch(plan: _Plan) -> tuple[subprocess.Popen[bytes], BinaryIO]:
    """Start the supervisor in the background; return it, and its log opened where its output begins."""
    path = plan.directory / "log" / "sandbox.log"
    with path.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pvcd", "sandbox", "up", *plan.options()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        begin = output.tell()
    log = path.open("rb")
    log.seek(begin)
    return process, log


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with _errors_as_sentences():
        asyncio.run(work())


@contextlib.contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except PvcdError as error:
        raise click.ClickException(error.sentence) from error


def _need_root() -> None:
    if os.geteuid() != 0:
        raise click.ClickException("`pvcd sandbox` requires root: it runs libvirt and virtual machines.")


def _say(text: str) -> None:
    # A closed terminal must not keep the sandbox from stopping.
    with contextlib.suppress(OSError):
        click.echo(text)
