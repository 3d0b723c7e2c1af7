"""How disks are formatted: the options of mkfs reach nothing but the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvcd.errors import Invalid
from pvcd_plugins.provisioner import grammar
from pvcd_plugins.provisioner.filesystems import FILESYSTEMS, mkfs


@pytest.mark.parametrize(
    ("filesystem", "arguments", "words"),
    [
        ("ext4", ["-L=root", "-m=1", "-E=nodiscard"], "mkfs.ext4 -q -F -L root -m 1 -E nodiscard"),
        ("xfs", [], "mkfs.xfs -q -f"),
        ("xfs", ["-l=size=64m", "-L=name"], "mkfs.xfs -q -f -l size=64m -L name"),
        ("btrfs", ["--label=a=b"], "mkfs.btrfs -q -f --label a=b"),
        ("vfat", ["-n=EFI"], "mkfs.vfat -I -n EFI"),
        ("swap", ["-L=swap"], "mkswap -f -L swap"),
    ],
)
def test_a_filesystem_argument_becomes_two_words(filesystem: str, arguments: list[str], words: str) -> None:
    assert mkfs(Path("/dev/loop7"), filesystem, arguments) == [*words.split(), "/dev/loop7"]


@pytest.mark.parametrize("argument", ["/dev/sda", "-L=a b", "-L=-n", "-L root", "-F", "--label", "-L=a\n", "=x", "-=x"])
def test_an_invalid_filesystem_argument_is_refused(argument: str) -> None:
    with pytest.raises(Invalid, match="filesystem_arg"):
        mkfs(Path("/dev/loop7"), "ext4", [argument])


@pytest.mark.parametrize("filesystem", ["", "ntfs", "ext4 ", "../sh", "ext4 /dev/sda"])
def test_an_unknown_filesystem_is_refused(filesystem: str) -> None:
    with pytest.raises(Invalid, match="filesystem must be one of ext2, ext3, ext4"):
        mkfs(Path("/dev/loop7"), filesystem, [])


@pytest.mark.parametrize(
    ("filesystem", "argument", "rule"),
    [
        ("ext4", "-d=etc", "must be one of -b, -C, -E, "),
        ("ext4", "-e=panic", "must be one of"),
        ("ext4", "-z=undo", "must be one of"),
        ("ext4", "-F=x", "must be one of"),
        ("ext4", "-J=size=4,device=sda", "must name no file or device, as 'device' does"),
        ("ext4", "--label=x", "must be one of"),
        ("xfs", "-l=file=1,name=victim,size=64m", "must name no file or device, as 'file' does"),
        ("xfs", "-l=logdev=victim", "must name no file or device, as 'logdev' does"),
        ("xfs", "-d=name=victim", "must name no file or device, as 'name' does"),
        *(("xfs", each, "must be one of") for each in ("-p=etc", "-c=options=x", "-r=file=1", "-K=x")),
        *(("btrfs", each, "must be one of") for each in ("--rootdir=etc", "-r=etc", "-K=x", "--force=x")),
        *(("vfat", each, "must be one of") for each in ("-m=x", "-l=x", "-C=x", "-A=x")),
        *(("swap", each, "must be one of") for each in ("-c=x", "--file=x", "-v=1")),
    ],
)
def test_no_option_names_a_file_or_what_the_kernel_does(filesystem: str, argument: str, rule: str) -> None:
    with pytest.raises(Invalid) as caught:
        mkfs(Path("/dev/loop7"), filesystem, [argument])
    assert caught.value.sentence.startswith(f"filesystem_arg of {filesystem} ")
    assert rule in caught.value.sentence and repr(argument) in caught.value.sentence


def test_each_filesystem_of_the_api_can_be_made() -> None:
    assert set(grammar.UNMOUNTABLE) < set(FILESYSTEMS)
