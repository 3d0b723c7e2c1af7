"""Scripts that mean harm: each fails with a sentence, and the machine is as it was before."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pyseccomp as seccomp
import pytest

from pvcd_plugins.provisioner.installation import Disk, calls, view
from pvcd_plugins.provisioner.installation.child import ChildInstallation
from pvcd_plugins.provisioner.installation.inside import MAX_SENTENCE, MAX_TASKS
from pvcd_plugins.provisioner.installation.output import MAX_BYTES, MAX_LINE_CHARACTERS, MAX_LINES
from pvcd_plugins.provisioner.installation.view import DEVICES, FIRST_USER, LINKS, USERS
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
    return f"import ctypes, fcntl, os, signal, socket, sys, threading, time\ndef install(**kwargs):\n{body}"


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
    assert len(said) <= MAX_SENTENCE


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


@pytest.mark.parametrize(
    "path",
    [
        *("/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/sudoers", "/etc/ssl/private", "/etc/pvc", "/etc/ceph"),
        *("/etc/apt/auth.conf", "/var/lib/dpkg", "/var/lib/pvcd", "/run/pvcd", "/run/systemd", "/boot"),
        *("/dev/kvm", "/dev/mem", "/dev/fuse", "/dev/loop-control", "/dev/sda", "/dev/vda", "/lost+found"),
    ],
)
async def test_a_script_does_not_see_what_is_not_listed(place: Bench, path: str) -> None:
    assert await place.install(script(f"print(os.path.lexists({path!r}))")) == ["False"]


async def test_a_script_sees_no_device_but_those_of_its_disks(place: Bench, disk: Disk) -> None:
    lines = await place.install(script("print(*sorted(os.listdir('/dev')))"), disk)
    own = {disk.device.name} if disk.device else set()
    assert set(lines[0].split()) == {*DEVICES, *LINKS, "pts", "shm", *own}
    number = f"file = os.open('/dev/{min(own)}', os.O_RDWR)"
    assert (await place.install(script(number, "print(len(os.read(file, 512)))"), disk))[1:] == ["512"]


@pytest.mark.parametrize(
    "act",
    [
        "os.mknod('/tmp/target/sda', 0o60660, os.makedev(7, 0))",
        "os.mknod('/tmp/target/mem', 0o20660, os.makedev(1, 1))",
        "mount(b'none', b'/mnt', b'devtmpfs')",
        "mount(os.fsencode(kwargs['disks'][0]['device']), b'/mnt', b'ext4')",
        "mount(None, b'/usr', None, 4096 | 32)",
        "open('/usr/left', 'w')",
        "open('/proc/sys/kernel/core_pattern', 'w')",
        "socket.create_server(('127.0.0.1', 80))",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "fcntl.ioctl(socket.socket(), 0x8914, b'lo'.ljust(32, b'\\0'))",  # SIOCSIFFLAGS: set it down
        "open('/sys/kernel/uevent_helper', 'w')",
        "check(libc.swapon(b'/tmp/target/x', 0))",
        "check(libc.settimeofday(ctypes.byref((ctypes.c_long * 2)(1, 1)), None))",
    ],
)
async def test_a_script_is_not_root_on_this_machine(place: Bench, disk: Disk, act: str) -> None:
    beginning = (
        "libc = ctypes.CDLL(None, use_errno=True)",
        "def check(result):",
        "  if result: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))",
        "def mount(source, target, kind, flags=0): check(libc.mount(source, target, kind, flags, None))",
    )
    sentence = await place.fails(script(*beginning, act), disk)
    assert any(f"Error: [Errno {number}]" in sentence for number in (errno.EPERM, errno.EACCES, errno.EROFS)), sentence


LIBC = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def number(result):
    return ctypes.get_errno() if result == -1 else 0
"""


async def test_a_script_cannot_make_calls_that_reach_the_kernel_itself(place: Bench) -> None:
    numbers = {name: _number(name) for name in (*calls.REFUSED, *calls.ABSENT)}
    numbers = {name: each for name, each in numbers.items() if each >= 0}  # this architecture has it
    lines = [f"for name, each in {numbers}.items(): print(name, number(libc.syscall(each, 0, 0, 0, 0, 0, 0)))"]
    found = dict(line.split() for line in await place.install(LIBC + script(*lines)))
    expected = {name: errno.ENOSYS if name in calls.ABSENT else errno.EPERM for name in numbers}
    assert {name: int(each) for name, each in found.items()} == expected
    assert len(numbers) > 40


async def test_a_script_makes_namespaces_but_none_of_users(place: Bench) -> None:
    flags = {name: getattr(view, name) for name in ("_NEW_USER", "_NEW_MOUNTS", "_NEW_HOSTNAME")}
    lines = [f"for each in {list(flags.values())}: print(number(libc.unshare(each)))"]
    lines += [f"print(number(libc.syscall({_number('clone')}, {view._NEW_USER} | signal.SIGCHLD, 0, 0, 0, 0)))"]
    assert await place.install(LIBC + script(*lines)) == [*map(str, (errno.EPERM, 0, 0, errno.EPERM))]


async def test_a_script_makes_sockets_of_networks_only(place: Bench) -> None:
    lines = [
        "for family in range(-1, 64):",
        "  made = libc.socket(family, socket.SOCK_DGRAM, 0)",
        "  if made >= 0: print(family)",
        "  else: assert number(made) == 1, (family, number(made))",
        f"  if family not in {[*map(int, calls.FAMILIES)]}:",
        "    assert number(libc.socketpair(family, socket.SOCK_STREAM, 0, (ctypes.c_int * 2)())) == 1, family",
    ]
    assert sorted(map(int, await place.install(LIBC + script(*lines)))) == sorted(calls.FAMILIES)


async def test_a_script_has_few_capabilities_and_administers_no_network_of_its_own(place: Bench) -> None:
    lines = [
        "import subprocess",
        f"assert libc.unshare({view._NEW_NETWORK}) == 0",
        "print(subprocess.run(['ip', 'link', 'add', 'x', 'type', 'bridge']).returncode)",
        "names = ('CapInh:', 'CapPrm:', 'CapEff:', 'CapBnd:', 'CapAmb:')",
        "sets = [line.split() for line in open('/proc/self/status')]",
        "print(*(int(each[1], 16) for each in sets if each[0] in names))",
        "print(subprocess.run(['grep', '-c', '^Cap[PEB].*CAPS', '/proc/self/status']).returncode)",
    ]
    kept = view.CAPABILITIES
    found = await place.install(LIBC + script(*(line.replace("CAPS", f"{kept:016x}") for line in lines)))
    assert found[-4:] == ["2", f"0 {kept} {kept} {kept} 0", "3", "0"]


async def test_a_damaged_filesystem_does_not_panic_the_kernel(place: Bench, disk: Disk) -> None:
    """A script can write to the device of a disk that the kernel has mounted."""
    await asyncio.to_thread(subprocess.run, ["tune2fs", "-e", "panic", str(disk.device)], check=True)
    lines = [f"print(*(line.split()[3] for line in open('/proc/self/mounts') if '{TARGET}' in line))"]
    assert "errors=remount-ro" in (await place.install(script(*lines), disk))[0]


async def test_a_program_of_another_architecture_ends(place: Bench) -> None:
    """The numbers of system calls are others there: a filter of this architecture's would let them pass."""
    code = bytes.fromhex("b814000000 cd80 c3")  # mov eax, 20; int 0x80; ret: getpid() of 32 bits
    lines = [
        "import mmap",
        "page = mmap.mmap(-1, 4096, prot=7)",
        f"page.write({code!r})",
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()",
    ]
    assert await place.fails(script(*lines)) == "The script was killed by SIGSYS."


def _number(call: str) -> int:
    number: int = seccomp.resolve_syscall(seccomp.system_arch(), call)
    return number


async def test_a_script_gains_no_privileges_and_is_a_user_that_owns_nothing(place: Bench) -> None:
    lines = ["print(open('/proc/self/uid_map').read().split())"]
    lines += ["print([line.split()[1] for line in open('/proc/self/status') if line[:8] in ('NoNewPri', 'Seccomp:')])"]
    assert await place.install(script(*lines)) == [f"['0', '{FIRST_USER}', '{USERS}']", "['1', '2']"]


async def test_no_process_that_a_script_can_look_into_has_descriptors_of_others(place: Bench, disk: Disk) -> None:
    lines = ["print(*(os.readlink(f'/proc/1/fd/{name}').split(':')[0] for name in os.listdir('/proc/1/fd')))"]
    assert (await place.install(script(*lines), disk))[0].split() == ["/dev/null", *["pipe"] * 5]


async def test_a_disk_that_a_script_releases_is_not_given_to_others_meanwhile(place: Bench, tmp_path: Path) -> None:
    need_root()
    disk = Disks(tmp_path).make("sda", None)
    lines = [
        f"file = os.open({str(disk.device)!r}, os.O_RDWR)",
        "before = os.pread(file, 4096, 0)",
        "fcntl.ioctl(file, 0x4C01)",  # LOOP_CLR_FD
        "print(len(before), os.pread(file, 4096, 0) == before)",
    ]
    assert await place.install(script(*lines), disk) == ["4096 True"]
    until(lambda: not Path("/sys/block", str(disk.device)[5:], "loop").exists())


async def test_a_device_on_a_disk_does_not_work(place: Bench, disk: Disk, tmp_path: Path) -> None:
    made = Disks(tmp_path)
    with made.mounted(disk) as files:
        os.mknod(files / "null", 0o20666, os.makedev(1, 3))
        os.mknod(files / "disk", 0o60666, os.stat(disk.device or "").st_rdev)
    for name in ("null", "disk"):
        assert "PermissionError: [Errno 13]" in await place.fails(script(f"open('{TARGET}/{name}')"), disk)


async def test_the_files_of_a_disk_keep_their_owners(place: Bench, disk: Disk, tmp_path: Path) -> None:
    made = Disks(tmp_path)
    with made.mounted(disk) as files:
        (files / "old").touch(mode=0o600)
        os.chown(files / "old", 1000, 1001)
    lines = [
        f"os.chdir('{TARGET}')",
        "print(os.stat('old').st_uid, os.stat('old').st_gid)",
        "open('new', 'w').close()",
        "os.chown('old', 33, 34)",
        "os.mkdir('dev')",
        "os.system('mknod -m 666 dev/null c 1 3 && echo x >dev/null && wc -c <dev/null')",
    ]
    assert await place.install(script(*lines), disk) == ["1000 1001", "0"]
    with made.mounted(disk) as files:
        found = {name: (each.st_uid, each.st_gid) for name in ("old", "new") for each in [os.stat(files / name)]}
        assert found == {"old": (33, 34), "new": (0, 0)}
        null = os.stat(files / "dev/null")
        assert (null.st_mode, null.st_rdev, null.st_uid) == (0o20666, os.makedev(1, 3), 0)


async def test_only_listed_files_are_shown_and_secrets_among_them_are_not(tmp_path: Path) -> None:
    need_root()
    shown, secret = tmp_path / "shown", tmp_path / "shown" / "etc" / "pvc-api.yaml"
    secret.parent.mkdir(parents=True)
    for file in (secret, secret.with_name("keyring"), shown / "image", tmp_path / "other"):
        file.write_text("content")
        file.chmod(0o600)
    place = Bench(ChildInstallation(files=[shown, tmp_path / "none"], hidden=[secret, Path("/usr/bin/passwd")]))
    lines = [
        f"os.chdir({str(shown)!r})",
        "print(open('image').read(), os.listdir('etc'), os.listdir('..'), os.path.isfile('/usr/bin/passwd'))",
        "open('image', 'a')",
    ]
    assert "OSError: [Errno 30]" in await place.fails(script(*lines))
    assert place.lines[0] == "content [] ['shown'] False"


async def test_a_secret_is_hidden_where_a_symbolic_link_shows_it(tmp_path: Path) -> None:
    need_root()
    secret = tmp_path / "real" / "shown" / "conf" / "settings.yaml"
    secret.parent.mkdir(parents=True)
    secret.write_text("content")
    (tmp_path / "link").symlink_to("real")
    both = ("link/shown", "real/shown")
    ways = (*([each] for each in (*both, "link", "real/shown/conf")), both, reversed(both))
    for shown, named in itertools.product(map(list, ways), ("link", "real")):
        files, hidden = [tmp_path / each for each in shown], [tmp_path / named / "shown/conf/settings.yaml"]
        place = Bench(ChildInstallation(files=files, hidden=hidden))
        lines = await place.install(script(f"os.system('ls {files[0]}; grep -r content {tmp_path}')"))
        assert lines and "content" not in " ".join(lines), (shown, named)


async def test_a_script_without_network_has_loopback_only() -> None:
    need_root()
    lines = ["import socket", "server = socket.create_server(('127.0.0.1', 0))", "print(*os.listdir('/sys/class/net'))"]
    lines += ["socket.create_connection(server.getsockname())", "print([name for _, name in socket.if_nameindex()])"]
    assert (await Bench(ChildInstallation(network=False)).install(script(*lines)))[-1] == "['lo']"


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
