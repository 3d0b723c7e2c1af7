"""Scripts that mean harm: each fails with a sentence, and the machine is as it was before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pvcd_plugins.provisioner.installation import Disk
from pvcd_plugins.provisioner.installation.child import ChildInstallation
from pvcd_plugins.provisioner.installation.inside import MAX_TASKS
from pvcd_plugins.provisioner.installation.output import MAX_BYTES, MAX_LINE_CHARACTERS, MAX_LINES
from tests.contract.installations import Disks, Traces, need_root, until
from tests.contract.test_installation import Bench

TARGET = "/tmp/target"


@pytest.fixture
async def place() -> AsyncIterator[Bench]:
    """The place where scripts run; nothing may be left behind."""
    need_root()
    traces = Traces()
    yield Bench(ChildInstallation())
    until(lambda: traces.left() == [])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk that must not be in use after the test."""
    need_root()
    made = Disks(tmp_path)
    try:
        yield made.make("sda", "/")
        assert made.held() == []
    finally:
        made.close()


def script(*lines: str) -> str:
    """A script whose install() has these lines."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"import ctypes, os, signal, sys, threading, time\ndef install(**kwargs):\n{body}"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["os._exit(0)"], "The script ended itself with status 0 before install() returned."),
        (["os._exit(7)"], "The script ended itself with status 7 before install() returned."),
        (["ctypes.string_at(0)"], "The script was killed by SIGSEGV."),
        (["os.kill(os.getpid(), signal.SIGTERM)"], "The script was killed by SIGTERM."),
        (["os.kill(0, signal.SIGKILL)"], "The script was killed by SIGKILL."),
        (["raise KeyboardInterrupt"], "The script failed in line 3: KeyboardInterrupt"),
        (["raise Exception('x' * 100_000)"], "The script failed in line 3: Exception: xxxx"),
        (["os.closerange(0, 1000)", "raise OSError('unseen')"], "The script ended itself with status "),
        (["install(**kwargs)"], "The script failed in line 3: RecursionError: maximum recursion depth exceeded"),
        (
            ["class E(Exception):", "  def __str__(self): os._exit(3)", "raise E"],
            "The script ended itself with status 3",
        ),
        (
            [f"file = open('{TARGET}/full', 'wb')", "while True: file.write(b'x' * 2**20)"],
            "line 4: OSError: [Errno 28]",
        ),
        (["file = open('/tmp/full', 'wb')", "while True: file.write(b'x' * 2**20)"], "line 4: OSError: [Errno 28]"),
        (["os.kill(1, signal.SIGKILL)", "raise OSError('alive')"], "The script failed in line 4: OSError: alive"),
    ],
)
async def test_a_script_that_does_not_return_fails(place: Bench, disk: Disk, lines: list[str], sentence: str) -> None:
    said = await place.fails(script(*lines), disk)
    assert sentence in said
    assert len(said) <= 500


@pytest.mark.parametrize(
    "lines",
    [
        ["os.system('setsid sleep 1000 >/dev/null 2>&1 </dev/null &')"],
        ["os.system('(setsid sh -c \"while :; do sleep 0.01; done\" &) &')"],
        ["threading.Thread(target=time.sleep, args=(1000,)).start()"],
        [f"os.mkdir('{TARGET}/dev')", f"os.system('mount --rbind /dev {TARGET}/dev')"],
        [f"os.mkdir('{TARGET}/m')", f"os.system('mount -t tmpfs none {TARGET}/m; mount --bind {TARGET} {TARGET}/m')"],
        [f"os.system('truncate -s 9M {TARGET}/i; mkfs.ext4 -q {TARGET}/i; mount -o loop {TARGET}/i /mnt')"],
        [f"os.system('truncate -s 9M {TARGET}/i /tmp/i; losetup -f {TARGET}/i; losetup -f /tmp/i')"],
        [f"os.system('umount {TARGET}')"],
        ["os.chroot('/tmp/target')"],
        ["os.system('mount -t proc none /tmp; mount --make-rshared /')"],
    ],
)
async def test_leftovers_of_a_script_are_removed_with_it(place: Bench, disk: Disk, lines: list[str]) -> None:
    await place.install(script(*lines), disk)


async def test_a_loop_device_is_removed_even_if_the_script_is_killed(place: Bench, disk: Disk) -> None:
    lines = [f"os.system('truncate -s 9M {TARGET}/i; losetup -f --show {TARGET}/i')", "time.sleep(1000)"]
    assert "did not finish within 1.5 s" in await place.fails(script(*lines), disk, limit=1.5)
    assert place.lines[0].startswith("/dev/loop")


@pytest.mark.parametrize("ignored", ["signal.SIGTERM", "signal.SIGCHLD", "signal.SIGHUP"])
async def test_a_script_that_ignores_signals_is_killed(place: Bench, disk: Disk, ignored: str) -> None:
    lines = [f"signal.signal({ignored}, signal.SIG_IGN)", "while True: time.sleep(1)"]
    assert "did not finish within 1 s" in await place.fails(script(*lines), disk, limit=1)


@pytest.mark.alone
@pytest.mark.parametrize(
    "lines",
    [
        ["while True:", "  try: os.fork()", "  except OSError: pass"],
        ["threading.stack_size(65536)", "while True: threading.Thread(target=time.sleep, args=(100,)).start()"],
    ],
    ids=["processes", "threads"],
)
async def test_a_fork_bomb_is_killed(place: Bench, disk: Disk, lines: list[str]) -> None:
    sentence = await place.fails(script(*lines), disk)
    assert sentence == f"The script started more than {MAX_TASKS} processes at once and was ended."


async def test_a_hundred_megabytes_of_output_neither_block_nor_fill_a_disk(place: Bench, disk: Disk) -> None:
    lines = await place.install(script("os.system('yes 2>/dev/null | head -c 100000000')"), disk)
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == f"{50_000_000 - MAX_LINES} more lines were dropped."


async def test_an_endless_line_is_truncated(place: Bench, disk: Disk) -> None:
    lines = await place.install(script("os.system('head -c 100000000 /dev/zero')", "print()", "print('end')"), disk)
    assert [len(line) for line in lines] == [MAX_LINE_CHARACTERS, 3]
    assert sum(map(len, lines)) < MAX_BYTES
