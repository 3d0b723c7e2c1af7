"""The filesystems of disks: what makes each one, and with which options.

mkfs runs as the task worker and not as a script, so it gets no option that names a file, a device, or what the kernel
does when the filesystem is damaged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pvcd import Invalid, programs, wrong_value
from pvcd_plugins.provisioner.grammar import read_filesystem_arg

FORMAT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A kind of filesystem."""

    mkfs: tuple[str, ...]
    """The program that makes it, over an existing one if there is one."""
    options: tuple[str, ...]
    """The options of mkfs that may be given, each of which has a value."""


_EXT = ("-b", "-C", "-E", "-g", "-G", "-i", "-I", "-J", "-L", "-m", "-N", "-O", "-T", "-U")
_BTRFS = ("-d", "-L", "-m", "-n", "-O", "-R", "-s", "-U")
_BTRFS_LONG = ("--checksum", "--csum", "--data", "--features", "--label", "--metadata", "--nodesize", "--sectorsize")
_VFAT = ("-b", "-D", "-f", "-F", "-g", "-h", "-i", "-M", "-n", "-r", "-R", "-s", "-S")
FILESYSTEMS = {
    **{kind: Filesystem((f"mkfs.{kind}", "-q", "-F"), _EXT) for kind in ("ext2", "ext3", "ext4")},
    "xfs": Filesystem(("mkfs.xfs", "-q", "-f"), ("-b", "-d", "-i", "-l", "-L", "-m", "-n", "-s")),
    "btrfs": Filesystem(("mkfs.btrfs", "-q", "-f"), (*_BTRFS, *_BTRFS_LONG, "--uuid")),
    "vfat": Filesystem(("mkfs.vfat", "-I"), _VFAT),
    "swap": Filesystem(("mkswap", "-f"), ("-L", "-p", "-U", "--label", "--pagesize", "--uuid")),
}
_LISTS = ("-d", "-l", "-J")
"""Options whose values are lists of names, most of them with values of their own."""
_PLACES = ("device", "file", "logdev", "name", "rtdev")
"""Names in such lists that stand for files and devices."""


def refuse_argument(filesystem: str, argument: str) -> None:
    """Raise `Invalid` for an option that mkfs of this filesystem does not get."""
    shown, what = repr(argument[:60]), f"filesystem_arg of {filesystem}"
    try:
        option, _, value = read_filesystem_arg(argument).partition("=")
    except ValueError as error:
        raise Invalid(wrong_value("filesystem_arg", shown, str(error))) from None
    allowed = FILESYSTEMS[filesystem].options
    if option not in allowed:
        raise Invalid(wrong_value(what, shown, f"must be one of {', '.join(allowed)}, with a value"))
    names = {part.partition("=")[0] for part in value.split(",")}
    if option in _LISTS and (place := next((name for name in _PLACES if name in names), None)):
        raise Invalid(wrong_value(what, shown, f"must name no file or device, as {place!r} does"))


def mkfs(device: Path, filesystem: str, arguments: Iterable[str]) -> list[str]:
    """Return the command that formats a device. Each `--option=value` becomes two words."""
    if filesystem not in FILESYSTEMS:
        raise Invalid(wrong_value("filesystem", repr(filesystem[:40]), f"must be one of {', '.join(FILESYSTEMS)}"))
    argv = list(FILESYSTEMS[filesystem].mkfs)
    for argument in arguments:
        refuse_argument(filesystem, argument)
        option, _, value = argument.partition("=")
        argv += [option, value]
    return [*argv, str(device)]


async def make_filesystem(
    device: Path, filesystem: str, arguments: Iterable[str], timeout: float = FORMAT_SECONDS
) -> None:
    """Format a device. Its content is lost."""
    argv = mkfs(device, filesystem, arguments)
    with tempfile.TemporaryDirectory() as nothing:  # so that no word can be a file of the working directory
        await programs.run(argv, timeout=timeout, cwd=nothing)
