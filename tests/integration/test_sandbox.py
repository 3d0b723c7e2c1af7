"""The sandbox's supervisor with small programs, and the sandbox with its real servers, also from a wheel."""

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from pvcd.errors import Conflict, Failed
from pvcd.programs.runner import run
from pvcd_plugins.sandbox import libvirtd, packages, state
from pvcd_plugins.sandbox.cluster import ALL, WITHOUT_CEPH, Sandbox, clean, end
from pvcd_plugins.sandbox.guest import GREETING
from pvcd_plugins.sandbox.service import Service
from pvcd_plugins.sandbox.state import Phase, runs, wait_until_gone
from pvcd_plugins.sandbox.supervisor import Supervisor
from pvcd_plugins.sandbox.zookeeper import ask
from tests.contract import conftest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "var" / "cache"

# Creates a file when it is up, and writes its name to another on SIGTERM; with "deaf" it does not end then.
SERVER = """
import os, signal, subprocess, sys, time
name, directory, *how = sys.argv[1:]
def ended(*_):
    with open(f"{directory}/ended", "a") as file: file.write(name + "\\n")
    if "deaf" not in how: sys.exit()
signal.signal(signal.SIGTERM, ended)
if "crash" in how: sys.exit("no config")
if "child" in how: subprocess.Popen(["sleep", "1000"])
if "daemon" in how: subprocess.Popen(["sleep", "1000"], start_new_session=True)
open(f"{directory}/{name}.up", "w").close()
while True: time.sleep(1000)
"""


def server(directory, name, *how, stop_seconds=10.0):
    up = directory / f"{name}.up"

    async def ready():
        return up.exists()

    argv = (sys.executable, "-c", SERVER, name, str(directory), *how)
    return Service(name, argv, ready, prepare=lambda: up.unlink(missing_ok=True), stop_seconds=stop_seconds)


async def until(condition, limit=60.0):
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - a condition of other processes
            await asyncio.sleep(0.02)


def need(*servers):
    try:
        packages.check(servers)
        if os.geteuid() != 0:
            raise Failed("root is needed")
    except Failed as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(error.sentence)


def free_ports():
    return dict(zip(("zookeeper", "redis", "api"), conftest.free_ports(3), strict=True))


def environment_of(process):
    return Path(f"/proc/{process.pid}/environ").read_text().split("\0")


def everything(directory):
    return state.processes(directory) | libvirtd.processes(directory / "libvirt")


@pytest.fixture
async def directory(tmp_path):
    path = tmp_path / "sandbox"
    state.make(path)
    yield path
    left = everything(path)
    await state.end(lambda: everything(path))
    assert not left


@pytest.fixture
async def supervisor(directory):
    said = []
    supervisor = Supervisor(directory, report=said.append, ready_seconds=10)
    supervisor.said = said
    yield supervisor
    await supervisor.stop()


async def test_servers_start_side_by_side_and_stop_in_reverse_order(directory, supervisor):
    await supervisor.start(server(directory, "first"))
    await supervisor.start(server(directory, "second"), server(directory, "third"))
    children = [child.id for child in supervisor.children.values()]
    await supervisor.stop("first")
    assert not runs(children[0]) and runs(children[1]) and runs(children[2])
    await supervisor.stop()
    assert not any(map(runs, children))
    ended = (directory / "ended").read_text().split()
    assert ended == ["first", "third", "second"]
    assert any(line.startswith("second      ready after 0.") for line in supervisor.said)


async def test_crashed_server_is_restarted(directory, supervisor):
    await supervisor.start(server(directory, "one"))
    child = supervisor.children["one"]
    for restarts in (1, 2):
        before = child.id
        assert state.send(before, signal.SIGKILL)
        await until(lambda n=restarts: child.restarts == n and child.phase is Phase.RUNNING)
        assert child.id != before and runs(child.id) and not runs(before)
    assert [line.split(";")[1] for line in supervisor.said if "SIGKILL" in line] == [
        " restarting it in 0.2 s",
        " restarting it in 0.4 s",
    ]


async def test_server_stopped_before_its_restart_stays_stopped(directory, supervisor):
    await supervisor.start(server(directory, "one"))
    child = supervisor.children["one"]
    state.send(child.id, signal.SIGKILL)
    await until(lambda: child.phase is Phase.STOPPED)
    await supervisor.stop()
    assert child.phase is Phase.STOPPED and not everything(directory)


async def test_server_that_does_not_stop_is_killed_with_its_children(directory, supervisor):
    await supervisor.start(server(directory, "one", "deaf", "child", stop_seconds=0.3))
    await supervisor.stop()
    assert "did not stop and was killed" in supervisor.said[-1]
    await until(lambda: not everything(directory), 5)


async def test_children_of_a_killed_server_end_before_its_restart(directory, supervisor):
    await supervisor.start(server(directory, "one", "child"))
    before = everything(directory)
    assert len(before) == 2
    state.send(supervisor.children["one"].id, signal.SIGKILL)
    assert await wait_until_gone(before, 5)


async def test_server_that_ends_before_it_is_ready_fails_at_once_with_the_end_of_its_log(directory, supervisor):
    with pytest.raises(Failed, match=r"(?s)one: it ended with exit status 1 before .*one.log:\n.*no config"):
        await supervisor.start(server(directory, "two"), server(directory, "one", "crash"))


async def test_server_that_is_never_ready_fails_after_the_limit(directory):
    async def ready():
        raise ConnectionRefusedError

    supervisor = Supervisor(directory, report=str, ready_seconds=0.3)
    with pytest.raises(Failed, match=r"Cannot start one: it was not ready after 0.3 s"):
        await supervisor.start(Service("one", ("sleep", "1000"), ready))
    await supervisor.stop()


async def test_missing_program_is_named(directory, supervisor):
    with pytest.raises(Failed, match="no-such-program"):
        await supervisor.start(Service("one", ("no-such-program",), server(directory, "one").ready))


async def test_server_gets_a_minimal_environment(directory, supervisor, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    await supervisor.start(server(directory, "one"))
    environment = environment_of(supervisor.children["one"].id)
    assert f"{state.MARK}={directory}" in environment
    assert not any(line.startswith("SECRET") for line in environment)


SUPERVISE = """
import asyncio, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("tests_sandbox", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
async def main():
    directory = Path(sys.argv[2])
    supervisor = tests.Supervisor(directory, report=print)
    with tests.state.lock(directory):
        await supervisor.start(tests.server(directory, "one", "daemon"), tests.server(directory, "two"))
        await asyncio.sleep(1000)
asyncio.run(main())
"""


def python(*arguments):
    """Start a Python process from where the project is found."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


async def test_a_server_that_loses_its_place_is_restarted(directory, supervisor):
    one = server(directory, "one")
    await supervisor.start(dataclasses.replace(one, lost_seconds=0.2))
    child = supervisor.children["one"]
    before = child.id
    (directory / "one.up").unlink()  # it answers that it is not ready
    await until(lambda: child.restarts == 1 and child.phase is Phase.RUNNING)
    assert child.id != before and not runs(before)
    assert "one         it has not been ready for 0.2 s; killing it" in supervisor.said


async def test_a_server_that_does_not_answer_is_left_alone(directory, supervisor):
    asked = []

    async def ready():
        if not asked:
            asked.append("at the start")
            return True
        asked.append("later")
        raise TimeoutError

    await supervisor.start(dataclasses.replace(server(directory, "one"), ready=ready, lost_seconds=0.2))
    await until(lambda: len(asked) > 20)
    assert supervisor.children["one"].restarts == 0


async def test_servers_die_with_a_killed_supervisor_and_the_rest_is_cleaned_up(directory):
    with python("-c", SUPERVISE, __file__, directory) as process:
        try:
            await until(lambda: (directory / "one.up").exists() and (directory / "two.up").exists())
            with pytest.raises(Conflict, match="in use by"), state.lock(directory):
                pass
            servers = everything(directory)
            assert len(servers) == 3
        finally:
            process.kill()
    await until(lambda: len(everything(directory)) == 1, 5)
    said = []
    await clean(directory, said.append)
    assert not everything(directory) and not any(map(runs, servers))
    assert said == ["sandbox     processes left behind and ended: 1"]


async def test_second_sandbox_in_a_directory_is_refused_without_harm_to_the_first(tmp_path):
    async with Sandbox(tmp_path / "s", only=(), report=str) as first:
        with pytest.raises(Conflict, match=f"in use by process {os.getpid()}"):
            async with Sandbox(tmp_path / "s", only=(), report=str):
                pass
        assert state.read(first.directory).ready
    assert state.read(first.directory) is None
    async with Sandbox(tmp_path / "s", only=(), report=str):
        pass


async def test_failed_start_leaves_nothing_behind(directory):
    need("zookeeper", "redis")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"Cannot use port {port} for redis: in use"):
            await Sandbox(directory, requested_ports={"redis": port}, report=str).up()
    broken = Sandbox(directory, requested_ports=free_ports(), only=("zookeeper", "redis"), report=str)
    (directory / "redis").write_text("in the way")
    with pytest.raises(Failed, match="Cannot start redis"):
        await broken.up()
    assert state.read(directory) is None and not everything(directory)


async def test_zookeeper_and_redis_start_answer_restart_and_stop(directory):
    need("zookeeper", "redis")
    ports = free_ports()
    async with Sandbox(directory, requested_ports=ports, only=("zookeeper", "redis"), report=print) as sandbox:
        login = f"AUTH {sandbox.password('redis')}\r\n".encode()
        assert b"Mode: standalone" in await ask(ports["zookeeper"], b"srvr")
        assert await ask(ports["redis"], login + b"SET key value\r\nQUIT\r\n") == b"+OK\r\n+OK\r\n+OK\r\n"
        for name in ("zookeeper", "redis"):
            before = next(one for one in state.read(directory).servers if one.name == name)
            state.send(before.process, signal.SIGKILL)
        await until(lambda: all(one.restarts == 1 and one.phase == "running" for one in state.read(directory).servers))
        assert await ask(ports["redis"], login + b"GET key\r\nQUIT\r\n") == b"+OK\r\n$5\r\nvalue\r\n+OK\r\n"
    assert not everything(directory) and state.read(directory) is None


def foreground(directory, *only):
    return python("-m", "tests.sandboxes", directory, json.dumps(free_ports()), *only)


def is_ready(directory):
    known = state.read(directory)
    return known is not None and known.ready


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_stops_a_sandbox_in_order(directory, number):
    need("redis")
    with foreground(directory, "redis") as process:
        await until(lambda: is_ready(directory))
        process.send_signal(number)
        output = await asyncio.to_thread(process.stdout.read)
    assert process.returncode == 0, output
    assert b"redis       stopped after" in output
    assert not everything(directory) and state.read(directory) is None


async def test_signal_stops_a_sandbox_that_is_still_starting(directory):
    need("zookeeper")
    with foreground(directory, "zookeeper") as process:
        await until(lambda: bool(everything(directory)))
        process.send_signal(signal.SIGTERM)
        output = await asyncio.to_thread(process.stdout.read)
    assert process.returncode == 0, output
    assert b"zookeeper   stopped" in output and b"ready" not in output
    assert not everything(directory) and state.read(directory) is None


async def test_down_stops_the_sandbox_of_another_process(directory):
    need("redis")
    said = []
    with foreground(directory, "redis") as process:
        await until(lambda: is_ready(directory))
        await end(directory, said.append)
        assert await asyncio.to_thread(process.wait, 5) == 0
    assert said[-1] == f"sandbox     nothing runs in {directory}"
    await end(directory, said.append)


async def test_down_and_up_work_after_kill_9_of_everything(directory):
    need("zookeeper", "redis")
    for after in (lambda: end(directory, str), lambda: asyncio.sleep(0)):
        with foreground(directory, "zookeeper", "redis") as process:
            await until(lambda: is_ready(directory))
            servers = everything(directory)
            process.kill()
        assert await wait_until_gone(servers, 5)
        await after()
    async with Sandbox(directory, requested_ports=free_ports(), only=("zookeeper", "redis"), report=str):
        pass


TESTS = """
import sys, time
from pathlib import Path
from tests.integration.cluster import Cluster
Cluster(Path(sys.argv[1])).up("--without-ceph")
print("up", flush=True)
time.sleep(1000)
"""


async def test_the_sandbox_of_the_tests_ends_with_them_even_on_kill_9(directory):
    need(*WITHOUT_CEPH)
    with python("-c", TESTS, directory) as process:
        try:
            assert await asyncio.to_thread(process.stdout.readline) == b"up\n"
            assert everything(directory)
        finally:
            process.kill()
    await until(lambda: not everything(directory) and state.read(directory) is None)


GUEST = """
<domain type='qemu'>
  <name>little</name><memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""


async def start_guest(directory):
    """Start a guest that survives the end of libvirtd; return its process."""
    daemons = libvirtd.processes(directory / "libvirt")
    file = directory / "little.xml"
    file.write_text(GUEST)
    await run(["virsh", "-c", libvirtd.uri(directory / "libvirt"), "create", str(file)], timeout=60)
    return libvirtd.processes(directory / "libvirt") - daemons


async def test_guests_end_with_the_sandbox_even_after_kill_9(directory):
    need("virtlogd", "libvirtd")
    with foreground(directory, "virtlogd", "libvirtd") as process:
        await until(lambda: is_ready(directory))
        guests = await start_guest(directory)
        process.kill()
    await until(lambda: everything(directory) == guests)
    said = []
    async with Sandbox(directory, requested_ports=free_ports(), only=("virtlogd", "libvirtd"), report=said.append):
        assert said[0] == "sandbox     processes left behind and ended: 1"
        assert not any(map(runs, guests))
        again = await start_guest(directory)
        assert len(again) == 1
    assert said[-3] == "guests      ended: 1", said
    assert not everything(directory) and not any(map(runs, again))
    assert not [path for path in (directory / "libvirt").rglob("*") if path.is_socket()]


async def pvcd(*arguments, environment=None):
    return await run([sys.executable, "-m", "pvcd", *arguments], timeout=100, check=False, environment=environment)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The environment of a Python in which pvcd is installed from its wheel, not from this checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site-packages")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pvcd", "plugins"):
        shutil.copytree(ROOT / name, source / name)
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=100)
    return {"PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}


@contextlib.asynccontextmanager
async def output_of(argv, environment, cwd):
    """Run a program in the background, and yield the lines that it has printed so far."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=PIPE, stderr=STDOUT, env={**os.environ, **environment}, cwd=cwd
    )
    lines = []

    async def read():
        async for line in process.stdout:
            lines.append(line.decode().rstrip())

    reader = asyncio.create_task(read())
    try:
        yield process, lines
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reader


@pytest.mark.timeout(300)
async def test_installed_wheel_runs_a_whole_cluster_with_tour_status_exec_and_down(directory, wheel, tmp_path):
    need(*ALL)
    at = ("--directory", str(directory))
    ports = [word for name, port in free_ports().items() for word in (f"--{name}-port", str(port))]
    up = [sys.executable, "-m", "pvcd", "sandbox", "up", *at, "--tour", "--temporary", "--cache", str(CACHE), *ports]
    async with output_of(up, wheel, tmp_path) as (process, lines):
        await until(lambda: process.returncode is not None or any(line.startswith("ready: ") for line in lines), 240)
        assert process.returncode is None, lines
        assert any(line.startswith("sandbox     ready after") for line in lines)
        assert f"{wheel['PYTHONPATH']}/pvcd_plugins/provisioner/examples/tiny.py" in "\n".join(lines)
        replies = [after for line, after in pairwise(lines) if line.startswith("$ curl ")]
        assert len(replies) > 10 and {reply[:1] for reply in replies} == {"{", "["}
        assert not [line for line in lines if line.endswith(":") and line.startswith("  changed ")]
        assert f"  | {GREETING}" in lines
        status = await pvcd("sandbox", "status", *at, "--json", environment=wheel)
        facts = json.loads(status.stdout)
        assert status.returncode == 0
        assert [(one["name"], one["state"]) for one in facts["servers"]] == [(name, "running") for name in ALL]
        again = await pvcd("sandbox", "up", *at, environment=wheel)
        assert again.returncode == 0
        assert f"is already up. API: {facts['api']}".encode() in again.stdout
        await check_namespace(at, facts["api"])
        assert [log for log in (directory / "log").glob("*.log") if "Traceback" in log.read_text()] == []
        down = await pvcd("sandbox", "down", *at, environment=wheel)
        assert down.returncode == 0, down
    assert process.returncode == 0, lines
    assert not everything(directory)
    assert not directory.exists()
    assert (await pvcd("sandbox", "status", *at)).returncode == 3


async def check_namespace(at, api):
    """Check that the API can be reached from this network, which the sandbox neither sees nor changes."""
    async with aiohttp.ClientSession() as session, session.get(f"{api}/node") as reply:
        assert [node["name"] for node in await reply.json()] == ["pvchv1"]
    made = await pvcd("sandbox", "exec", *at, "--", "ip", "link", "add", "inside", "type", "bridge")
    assert made.returncode == 0, made
    volumes = await pvcd("sandbox", "exec", *at, "--", "rbd", "ls", "vms")
    assert volumes.stdout.decode().split() == ["hello_sda"], volumes
    inside = names_of_links(await pvcd("sandbox", "exec", *at, "ip", "-j", "link"))
    outside = names_of_links(await run(["ip", "-j", "link"], timeout=10))
    assert {"lo", "inside"} <= inside
    assert inside & outside == {"lo"}


def names_of_links(listed):
    return {link["ifname"] for link in json.loads(listed.stdout)}


async def test_detached_up_prints_why_it_failed(directory):
    need(*ALL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = await pvcd("sandbox", "up", "--directory", str(directory), "--detach", "--api-port", str(port))
    assert up.returncode == 1
    assert f"Cannot use port {port} for api: in use".encode() in up.stdout
