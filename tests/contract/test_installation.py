"""The contract of the place where scripts run, on the fake and the real one; and cases that need the real one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pvcd.errors import Failed, Invalid, TimedOut
from pvcd_plugins.provisioner.installation import Disk, Installation, InstallFailed
from pvcd_plugins.provisioner.installation.child import ChildInstallation
from pvcd_plugins.provisioner.installation.fake import FakeInstallation
from tests.contract.installations import Disks, Traces, insiders, job, need_root, until

HANG = "import time\ndef install(**kwargs):\n    print('begun')\n    time.sleep(1000)\n"


class Bench:
    """A place for scripts, and the lines that they wrote."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.lines: list[str] = []
        self.begun = asyncio.Event()

    async def output(self, line: str) -> None:
        self.lines.append(line)
        self.begun.set()

    async def install(self, script: str, *disks: Disk, limit: float = 60.0, **arguments: str) -> list[str]:
        await self.installation.install(job(script, *disks, **arguments), output=self.output, limit=limit)
        return self.lines

    async def fails(self, script: str, *disks: Disk, limit: float = 60.0) -> str:
        with pytest.raises(Failed) as caught:
            await self.install(script, *disks, limit=limit)
        return caught.value.sentence


@pytest.fixture
async def real() -> AsyncIterator[Bench]:
    """The real place, of which nothing may be left."""
    need_root()
    traces = Traces()
    yield Bench(ChildInstallation())
    until(lambda: traces.left() == [])


@pytest.fixture(params=["fake", "real"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "fake":
        return Bench(FakeInstallation())
    found: Bench = request.getfixturevalue("real")
    return found


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    """Devices that must not be in use after the test."""
    need_root()
    made = Disks(tmp_path)
    try:
        yield made
        assert made.held() == []
    finally:
        made.close()


async def test_a_script_gets_the_vm_and_its_arguments(bench: Bench) -> None:
    script = (
        "import json\n"
        "def install(**kwargs):\n"
        "    for pair in sorted(kwargs.items()):\n"
        "        print(json.dumps(pair))\n"
    )
    disk = Disk("vms", "sda", 4, None, "ext4", ("-L=root", "-m=1"))
    assert await bench.install(script, disk, release="bookworm", mirror="http://a/?b=c") == [
        '["disks", [{"pool": "vms", "disk_id": "sda", "disk_size_gb": 4, "mountpoint": null, "filesystem": "ext4", '
        '"filesystem_args": "-L=root -m=1", "device": null}]]',
        '["mirror", "http://a/?b=c"]',
        '["networks", [{"vni": 200}, {"vni": 300}]]',
        '["release", "bookworm"]',
        '["temporary_directory", "/tmp/target"]',
        '["vm_id", 1]',
        '["vm_name", "web1"]',
    ]


async def test_an_exception_in_a_script_is_reported_with_its_line_and_the_output_before_is_kept(bench: Bench) -> None:
    script = "def install(**kwargs):\n    print('before')\n    raise ValueError('no\\nway')\n"
    assert await bench.fails(script) == "The script failed in line 3: ValueError: no\nway"
    assert bench.lines[0] == "before"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("import sys\ndef install(**kwargs):\n    sys.exit(0)\n", "The script ended itself in line 3: sys.exit(0)."),
        ("def install(**kwargs)\n", "The script failed in line 1: SyntaxError: expected ':'"),
        ("1 / 0\n", "The script failed in line 1: ZeroDivisionError: division by zero"),
        ("x = 1\n", "The script failed before its first line: TypeError: there is no function install()"),
        (
            "def install(vm):\n    pass\n",
            "The script failed before its first line: TypeError: install() got an unexpected",
        ),
    ],
)
async def test_a_script_that_does_not_return_fails(bench: Bench, script: str, sentence: str) -> None:
    assert (await bench.fails(script)).startswith(sentence)


async def test_a_script_that_takes_too_long_is_killed(bench: Bench) -> None:
    if isinstance(bench.installation, FakeInstallation):
        bench.installation.hangs = True
    with pytest.raises(TimedOut, match=r"^The script did not finish within 0.5 s and was ended.$"):
        await bench.install(HANG, limit=0.5)


async def test_a_canceled_run_leaves_nothing_and_the_next_one_works(bench: Bench) -> None:
    if isinstance(bench.installation, FakeInstallation):
        bench.installation.hangs = True
        bench.begun.set()
    task = asyncio.create_task(bench.install(HANG))
    await bench.begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert insiders(os.getpid()) == []
    if isinstance(bench.installation, FakeInstallation):
        bench.installation.hangs = False
    assert await bench.install("def install(**kwargs):\n    print('next')\n") == [*bench.lines[:-1], "next"]


@pytest.mark.parametrize(
    ("disks", "sentence"),
    [
        ([Disk("vms", "sda", 1, "/../../etc", "ext4", (), Path("/dev/null"))], "mountpoint of sda .*got '/../../etc'"),
        ([Disk("vms", "sda", 1, "var", "ext4", (), Path("/dev/null"))], "mountpoint of sda .*got 'var'"),
        (
            [Disk("vms", "sda", 1, "/", "proc", (), Path("/dev/null"))],
            "filesystem of sda must be one of ext2, .*; got proc",
        ),
        ([Disk("vms", "sda", 1, "/", None, (), Path("/dev/null"))], "filesystem of sda must be one of .*; got none"),
        ([Disk("vms", "sda", 1, "/", "ext4")], "Cannot mount disk 'sda': its volume is not mapped"),
        (
            [Disk("vms", d, 1, "//var/", "ext4", (), Path("/dev/null")) for d in ("sda", "sdb")],
            "must be different for each disk; got '/var' twice",
        ),
    ],
)
async def test_disks_that_cannot_be_mounted_are_refused(bench: Bench, disks: list[Disk], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        await bench.install("def install(**kwargs):\n    pass\n", *disks)


async def test_an_argument_cannot_have_the_name_of_a_standard_argument(bench: Bench) -> None:
    with pytest.raises(Invalid, match="disks cannot be an argument: it is given to every script"):
        await bench.install("def install(**kwargs):\n    pass\n", disks="none")


# What only the real one can show


async def test_the_files_of_a_script_are_on_the_disks_afterwards(real: Bench, disks: Disks) -> None:
    parts = [disks.make("sdc", "/var/log"), disks.make("sda", "/"), disks.make("sdb", "/var", "xfs")]
    script = (
        "import os, pathlib\n"
        "def install(temporary_directory, **kwargs):\n"
        "    root = pathlib.Path(temporary_directory)\n"
        "    for place in ('', 'var', 'var/log'):\n"
        "        assert os.path.ismount(root / place)\n"
        "        (root / place / 'here').write_text(place)\n"
    )
    await real.install(script, *parts)
    for disk, place in zip(parts, ("var/log", "", "var"), strict=True):
        with disks.mounted(disk) as files:
            assert (files / "here").read_text() == place


async def test_a_swap_disk_is_not_mounted(real: Bench, disks: Disks) -> None:
    swap = disks.make("sdb", "/swap", "swap")
    script = "import os\ndef install(disks, **kwargs):\n    print(disks[1]['mountpoint'], os.listdir('/tmp/target'))\n"
    assert await real.install(script, disks.make("sda", "/"), swap) == ["None ['lost+found']"]


async def test_a_link_on_a_disk_leads_no_mount_elsewhere(real: Bench, disks: Disks, tmp_path: Path) -> None:
    root, var = disks.make("sda", "/"), disks.make("sdb", "/var/log")
    with disks.mounted(root) as files:
        (files / "var").symlink_to(tmp_path)
    sentence = await real.fails("def install(**kwargs):\n    pass\n", root, var)
    assert sentence == "Cannot mount a disk at '/var/log': not a directory of its disk, or reached by a symbolic link."
    assert not (tmp_path / "log").exists()


async def test_a_disk_without_a_file_system_is_named(real: Bench, disks: Disks) -> None:
    blank = disks.make("sda", "/", None)
    blank = Disk("vms", "sda", 1, "/", "ext4", (), blank.device)
    sentence = await real.fails("def install(**kwargs):\n    pass\n", blank)
    assert sentence == "Cannot mount disk 'sda' (ext4) at '/': Invalid argument."


async def test_a_script_does_not_see_our_environment_files_or_processes(
    real: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    script = (
        "import os\n"
        "def install(**kwargs):\n"
        "    print(sorted(os.environ))\n"
        "    print(os.listdir('/tmp'), [name for name in os.listdir('/proc') if name.isdecimal()])\n"
        "    links = [os.readlink(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd') if int(name) != 4]\n"
        "    print(sorted(link.split(':')[0] for link in links))\n"
        "    open('/tmp/left', 'w')\n"
    )
    with (tmp_path / "open").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        lines = await real.install(script)
    assert lines == [
        "['HOME', 'LC_ALL', 'PATH', 'TERM', 'container', 'https_proxy']",
        "['target'] ['1', '2']",
        "['/dev/null', 'pipe', 'pipe', 'pipe']",
    ]


async def test_lines_of_programs_arrive_while_they_run(real: Bench) -> None:
    script = "import os\ndef install(**kwargs):\n    os.system('echo one; echo two >&2; exec sleep 1000')\n"
    task = asyncio.create_task(real.install(script))
    async with asyncio.timeout(20):
        while real.lines != ["one", "two"]:  # noqa: ASYNC110 - lines come when they come
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])


WORKER = """
import asyncio, sys
from pathlib import Path
from pvcd_plugins.provisioner.installation import Disk
from pvcd_plugins.provisioner.installation.child import ChildInstallation
from tests.contract.installations import job
from tests.contract.test_installation import DAEMON

async def output(line):
    print(line, flush=True)

disk = Disk("vms", "sda", 1, "/", "ext4", (), Path(sys.argv[1]))
asyncio.run(ChildInstallation().install(job(DAEMON, disk), output=output, limit=1000))
"""
DAEMON = HANG.replace("print", "__import__('os').system('setsid sleep 1000 &')\n    print")


async def test_nothing_is_left_when_the_worker_is_killed(real: Bench, disks: Disks) -> None:
    device = disks.make("sda", "/").device
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, str(device), stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"begun\n"
    assert disks.held() == [str(device)]
    assert len(insiders(worker.pid)) == 5
    worker.kill()
    await worker.wait()
    until(lambda: disks.held() == [] and insiders(worker.pid) == [])


@pytest.mark.parametrize("which", ["outside", "init"])
async def test_nothing_is_left_when_the_child_is_killed(real: Bench, disks: Disks, which: str) -> None:
    task = asyncio.create_task(real.fails(HANG, disks.make("sda", "/")))
    await real.begun.wait()
    outside, init, *_ = sorted(insiders(os.getpid()))
    os.kill({"outside": outside, "init": init}[which], signal.SIGKILL)
    assert await task == "The process that the script ran in was killed."
    assert disks.held() == []


async def test_a_failing_output_ends_the_script(real: Bench) -> None:
    async def output(line: str) -> None:
        raise InstallFailed(f"nobody takes {line}")

    with pytest.raises(InstallFailed, match="nobody takes begun"):
        await real.installation.install(job(HANG), output=output, limit=60)
    assert insiders(os.getpid()) == []


async def test_several_scripts_run_side_by_side(real: Bench, disks: Disks) -> None:
    script = "import time\ndef install(vm_name, **kwargs):\n    open('/tmp/target/here', 'x')\n    time.sleep(0.3)\n"
    parts = [disks.make(f"sd{letter}", "/") for letter in "abc"]
    await asyncio.gather(*(real.install(script, part) for part in parts))
    for part in parts:
        with disks.mounted(part) as files:
            assert (files / "here").exists()
