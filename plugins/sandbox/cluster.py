"""The sandbox's cluster: its servers, the order in which they start and stop, and its settings."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from pvcd import Failed, PvcdError, Refused, did_you_mean
from pvcd_plugins.sandbox import ceph, guest, kvm, libvirtd, mounts, packages, passwords, ports, redis, sockets, state
from pvcd_plugins.sandbox.service import Service
from pvcd_plugins.sandbox.state import ProcessId, Server, State
from pvcd_plugins.sandbox.supervisor import Report, Supervisor
from pvcd_plugins.sandbox.zookeeper import zookeeper

SERVERS = ("zookeeper", "redis", "virtlogd", "libvirtd")
"""Servers that need no other server; they start side by side."""
CEPH = "ceph"
"""All servers of Ceph together, and their part of the directory."""
DAEMONS = ("api", "node", "worker")
"""The daemons of pvcd, which need the servers."""
ALL = (*SERVERS, *ceph.NAMES, *DAEMONS)
WITHOUT_CEPH = (*SERVERS, *DAEMONS)
NODE = "pvchv1"
USER = "pvc"
"""The name of the daemons at ZooKeeper."""
LIBVIRT = "libvirt"
"""libvirt's part of the directory."""
FILES = "files"
"""The directory whose files installation scripts may read."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_SECONDS = 90.0
"""A sandbox that takes longer to stop is killed."""


class Sandbox:
    """A whole cluster of one node in one directory, or only the servers that `only` names.

    `async with Sandbox(directory) as sandbox:` runs it during the block, in the network of this process. `listener`
    is a socket of another network, on which the API is served as well.
    """

    def __init__(
        self,
        directory: Path,
        *,
        cache: Path | None = None,
        requested_ports: Mapping[str, int | None] | None = None,
        only: Collection[str] = ALL,
        listener: socket.socket | None = None,
        vm_files: Sequence[Path] = (),
        report: Report = print,
    ) -> None:
        for name in only:
            if name not in (CEPH, *ALL):
                raise Refused(f"There is no server {name!r} in the sandbox: {did_you_mean(name, (CEPH, *ALL))}")
        self.directory = directory.resolve()
        self.cache = (cache or self.directory / "cache").resolve()
        """Files that all sandboxes share: the guest's kernel, the capabilities of QEMU ..."""
        self.domain_type = "qemu"
        """The libvirt domain type that works on this machine."""
        self.ports: dict[str, int] = {}
        self._requested_ports = requested_ports or {}
        self._listener = listener
        self.vm_files = vm_files
        """Directories whose files VMs may use."""
        self._only = {*only, *ceph.NAMES} - {CEPH} if {CEPH, *ceph.NAMES} & {*only} else {*only}
        """A server of Ceph needs the others."""
        self._report = report
        self._supervisor = Supervisor(self.directory, report=report, changed=self._write_state)
        self._ready = False
        self._undo = contextlib.AsyncExitStack()

    @property
    def config_file(self) -> Path:
        """Return the path of the daemons' settings file."""
        return self.directory / "pvc-api.yaml"

    @property
    def api(self) -> str:
        """Return the base URL of the API."""
        return state.api_address(self.ports)

    def password(self, server: str) -> str:
        """Return the password of a server, which lasts as long as the directory; it blocks."""
        return passwords.password(self.directory / f"{server}.password")

    async def up(self) -> None:
        """Start everything and return when all of it is ready; on failure leave nothing behind."""
        begun = time.monotonic()
        await asyncio.to_thread(packages.check, self._only)
        await asyncio.to_thread(state.make, self.directory)
        async with contextlib.AsyncExitStack() as undo:
            undo.enter_context(state.lock(self.directory))
            await clean(self.directory, self._report)
            undo.push_async_callback(self._end)
            self.ports = ports.choose(self._requested_ports)
            self._write_state()
            if "node" in self._only:
                await self._prepare_guests()
            await asyncio.to_thread(lambda: write_settings(self.config_file, settings(self)))
            services = await asyncio.to_thread(self._services)
            await self._start_servers(services)
            await self._supervisor.start(*(services[name] for name in DAEMONS if name in self._only))
            # Said first: who waits for the state reads what was said until then, and no further.
            self._report(f"{'sandbox':<11} ready after {time.monotonic() - begun:.1f} s")
            self._ready = True
            self._write_state()
            self._undo = undo.pop_all()

    async def run_until_stopped(self, then: Callable[[], Awaitable[None]] | None = None) -> None:
        """Bring the sandbox up, await `then`, wait for a signal of `SIGNALS`, and bring it down."""

        async def begin() -> None:
            await self.up()
            if then:
                await then()

        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in SIGNALS:
            loop.add_signal_handler(number, stop.set)
        starting, stopping = asyncio.create_task(begin()), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            starting.cancel()  # has an effect only if the signal came first
            await asyncio.wait((starting,))
            if not starting.cancelled():
                starting.result()
                await stopping
        finally:
            stopping.cancel()
            await self.down()
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    async def down(self) -> None:
        """Stop everything, guests included; do nothing if it is not up."""
        await self._undo.aclose()

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()

    async def _start_servers(self, services: Mapping[str, Service]) -> None:
        """Start the servers that need no other, and Ceph beside them; raise the first failure."""
        try:
            async with asyncio.TaskGroup() as group:
                alone = (services[name] for name in SERVERS if name in self._only)
                group.create_task(self._supervisor.start(*alone))
                if self._only >= {*ceph.NAMES}:
                    group.create_task(self._start_ceph())
        except* PvcdError as errors:
            failure = errors.exceptions[0]
        else:
            return
        raise failure

    async def _start_ceph(self) -> None:
        begun = time.monotonic()
        cluster = ceph.Ceph(self.directory / CEPH, self.ports[ceph.MON], node=NODE)
        for stage in cluster.stages():
            await self._supervisor.start(*stage)
        health = await cluster.finish()
        self._report(f"{'ceph':<11} {health} after {time.monotonic() - begun:.1f} s")

    async def _prepare_guests(self) -> None:
        """Find out whether KVM boots a kernel; if not, guests run under emulation."""
        shared = self.cache / LIBVIRT
        await asyncio.to_thread(_share, self.directory / LIBVIRT / "cache", shared)
        how = "emulation: there is no KVM here"
        if kvm.DEVICE.exists():
            try:
                files = await guest.tiny(self.cache / "guest")
                self.domain_type = await kvm.domain_type(*files, self.cache / "guest")
                how = "KVM" if self.domain_type == "kvm" else "emulation: KVM does not boot a kernel here"
            except Failed as error:
                how = f"emulation: KVM could not be tried: {error}"
        self._report(f"{'guests':<11} run under {how}")

    async def _end(self) -> None:
        self._ready = False
        await self._supervisor.stop(*DAEMONS)
        # Only now: the node agent would start them again.
        count = await state.end(self._guests)
        if count:
            self._report(f"{'guests':<11} ended: {count}")
        count = await state.end(self._added_osds)
        if count:
            self._report(f"{ceph.OSD:<11} added OSDs ended: {count}")
        await self._supervisor.stop()
        await clean(self.directory, self._report)
        state.forget(self.directory)

    def _guests(self) -> set[ProcessId]:
        return libvirtd.processes(self.directory / LIBVIRT) - {child.id for child in self._supervisor.children.values()}

    def _added_osds(self) -> set[ProcessId]:
        """Return the OSDs that the node agent made of devices; they end before Ceph does."""
        ours = {child.id for child in self._supervisor.children.values()}
        return {process for process in state.processes(self.directory) - ours if state.program(process) == ceph.OSD}

    def _services(self) -> dict[str, Service]:
        at = self.directory
        return {
            "zookeeper": zookeeper(at / "zookeeper", self.ports["zookeeper"]),
            "redis": redis.redis(at / "redis", self.ports["redis"], self.password("redis")),
            "virtlogd": libvirtd.virtlogd(at / LIBVIRT),
            "libvirtd": libvirtd.libvirtd(at / LIBVIRT),
            "api": self._daemon("api", self._api_ready, self._listener),
            "node": self._daemon("node", self._node_ready),
            "worker": self._daemon("worker", self._worker_ready),
        }

    def _daemon(
        self, name: str, ready: Callable[[], Awaitable[bool]], listener: socket.socket | None = None
    ) -> Service:
        environment = {"PVC_CONFIG_FILE": str(self.config_file)}
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
        sockets = () if listener is None else (listener.fileno(),)
        options = [word for each in sockets for word in ("--fd", str(each))]
        return Service(name, (sys.executable, "-m", "pvcd", name, *options), ready, environment, sockets=sockets)

    async def _api_ready(self) -> bool:
        return (await _get(self.api))[0] == 209

    async def _node_ready(self) -> bool:
        status, nodes = await _get(f"{self.api}/node")
        if status != 200 or not any(node["name"] == NODE and node["daemon_state"] == "run" for node in nodes):
            return False
        if ceph.MON not in self._only:
            return True
        status, pools = await _get(f"{self.api}/storage/ceph/pool")
        return status == 200 and bool(pools)

    async def _worker_ready(self) -> bool:
        return "takes tasks" in await asyncio.to_thread((self.directory / "log/worker.log").read_text)

    def _write_state(self) -> None:
        servers = tuple(
            Server(
                name=child.service.name,
                process=child.id,
                argv=child.service.argv,
                port=self.ports.get(child.service.name),
                phase=child.phase,
                since=child.since,
                restarts=child.restarts,
            )
            for child in self._supervisor.in_order()
        )
        ourselves = ProcessId(os.getpid(), state.start_time(os.getpid()))
        known = State(supervisor=ourselves, ready=self._ready, ports=self.ports, servers=servers)
        try:
            state.write(self.directory, known)
        except OSError as error:  # a full disk must not keep the sandbox from stopping
            self._report(f"{'sandbox':<11} cannot write its state: {error}")


async def end(directory: Path, report: Report) -> None:
    """Stop the sandbox that runs in a directory (an absolute path) and clean up, even if nothing runs."""
    if not state.is_sandbox(directory):
        report(f"There is no sandbox in {directory}.")
        return
    known = state.read(directory)
    if known and state.send(known.supervisor, signal.SIGTERM):
        report(f"{'sandbox':<11} stopping process {known.supervisor.pid}")
        if not await state.wait_until_gone([known.supervisor], STOP_SECONDS):
            report(f"{'sandbox':<11} killed: it did not stop within {STOP_SECONDS:g} s")
            state.send(known.supervisor, signal.SIGKILL)
            await state.wait_until_gone([known.supervisor], state.END_SECONDS)
    if state.is_sandbox(directory):  # a temporary sandbox has removed itself
        with state.lock(directory):
            await clean(directory, report)
            state.forget(directory)
    report(f"{'sandbox':<11} nothing runs in {directory}")


async def remove(directory: Path) -> None:
    """Stop the sandbox in a directory and remove the directory; do nothing if it is no sandbox."""
    if state.is_sandbox(directory):
        await end(directory, lambda line: None)
        await asyncio.to_thread(shutil.rmtree, directory)


async def clean(directory: Path, report: Report) -> None:
    """End every process that a sandbox left behind in this directory; remove its sockets, mounts and loop devices."""
    count = await state.end(lambda: state.processes(directory) | libvirtd.processes(directory / LIBVIRT))
    if count:
        report(f"{'sandbox':<11} processes left behind and ended: {count}")
    await mounts.release(directory)
    for server in (directory / LIBVIRT, directory / CEPH):
        await asyncio.to_thread(state.clear, server)
        await asyncio.to_thread(sockets.release, server)


def settings(sandbox: Sandbox) -> dict[str, Any]:
    """Return the settings of the sandbox's daemons."""
    directory, ports = sandbox.directory, sandbox.ports
    return {
        "pvc": {
            "debug": False,
            "coordinators": [f"127.0.0.1:{ports['zookeeper']}"],
            "api": {
                "listen_address": "127.0.0.1",
                "listen_port": ports["api"],
                "authentication": {"enabled": False, "secret_key": "", "tokens": []},
                "ssl": {"enabled": False, "cert_file": "", "key_file": ""},
            },
            "node": {"name": NODE, "coordinator": True},
            "keepalive": {"interval": 1},
            "zookeeper": {"session_timeout": 3, "username": USER, "password": sandbox.password("zookeeper")},
            "redis": {"url": redis.url(ports["redis"], sandbox.password("redis"))},
            "vm": {
                "uri": libvirtd.uri(directory / LIBVIRT),
                "domain_types": ["kvm", "qemu"] if sandbox.domain_type == "kvm" else ["qemu"],
                "console_directory": str(directory / "console"),
                "host_access": [{"files": list(map(str, sandbox.vm_files))}] if sandbox.vm_files else [],
                "state_directory": str(directory / "vms"),
                "tpm_directory": str(libvirtd.tpm_directory(directory / LIBVIRT)),
            },
            "provisioner": {"script_files": [str(directory / FILES)]},
            "hooks": {"directory": str(directory / "hooks"), "records": str(directory / "hook-runs")},
            "network": {"device": "lo", "directory": str(directory / "network")},
            "ceph": {
                **ceph.settings(directory / CEPH),
                "refresh_seconds": 10,  # each runs ten programs of Ceph, a quarter of a second of a processor each
                "deadline": 10,
                "mapping_directory": str(directory / "mapping"),
                "lock_file": str(directory / "ceph.lock"),
            },
        }
    }


def write_settings(file: Path, values: Mapping[str, Any]) -> None:
    """Write a settings file that only its owner can read."""
    passwords.write(file, yaml.safe_dump(values, sort_keys=False))


def _share(own: Path, shared: Path) -> None:
    """Make a directory of this sandbox a link to one that all sandboxes share."""
    shared.mkdir(parents=True, exist_ok=True)
    own.parent.mkdir(parents=True, exist_ok=True)
    if not own.exists():
        own.symlink_to(shared)


async def _get(url: str) -> tuple[int, Any]:
    """Return the status and the JSON body of a reply, or status 0 if there is none."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as reply:
            return reply.status, await reply.json()
    except (aiohttp.ClientError, ValueError):
        return 0, None
