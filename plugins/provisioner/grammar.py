"""What names, disks, MAC templates and arguments may be. Each function reads a text, or says why it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

from pvcd import NAME_PATTERN, Invalid
from pvcd_plugins.provisioner.macs import PREFIX, from_template

T = TypeVar("T")
MAX_NAME, MAX_VNI, MAX_WORD, MAX_PATH, MAX_VALUE = 128, 2**24 - 1, 128, 255, 4096
MAX_ARGUMENTS = 64 * 1024
"""Characters of all arguments of a script together."""
FILESYSTEMS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "swap")
UNMOUNTABLE = ("swap",)
"""Of these, those that hold no files."""
GIVEN = ("vm_name", "vm_id", "temporary_directory", "disks", "networks")
"""What install() is given in any case."""
_DISK_ID = re.compile(r"[sv]d[a-z]{1,2}")
_FILESYSTEM_ARG = re.compile(r"(?:-[A-Za-z]|--[A-Za-z][A-Za-z0-9-]*)=[A-Za-z0-9^][A-Za-z0-9._,:=+^@%-]*")
_PART_OF_PATH = re.compile(r"[A-Za-z0-9._+@:-]+")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_VNI = re.compile(r"[1-9][0-9]{0,7}")


def in_path(what: str, read: Callable[[str], T], text: str) -> T:
    """A part of the path that names something new, which is read like the argument in its place."""
    try:
        return read(text)
    except ValueError as error:
        raise Invalid(f"{what} {text[:60]!r} is not valid: {error}.") from None


def read_name(text: str) -> str:
    """The name of anything new."""
    if len(text) > MAX_NAME or not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(
            f"it must be a letter or digit, then letters, digits, '.', '_', '+' and '-', {MAX_NAME} at most"
        )
    return text


def read_vni(text: str) -> int:
    """The number of a network."""
    if not _VNI.fullmatch(text) or int(text) > MAX_VNI:
        raise ValueError(f"it must be a whole number of at least 1 and at most {MAX_VNI}")
    return int(text)


def read_vnc_bind(text: object) -> str | None:
    """An IP address; empty for the default."""
    try:
        address = ip_address(str(text)) if text != "" else None
    except ValueError:
        raise ValueError("it must be an IP address, such as 127.0.0.1") from None
    if getattr(address, "scope_id", None):
        raise ValueError("an address with a link is not possible")
    return None if address is None else str(address)


def read_mac_template(text: object) -> str | None:
    """A MAC address with placeholders; empty for random ones."""
    if text == "":
        return None
    template = str(text)
    try:
        for number in (0, 15):  # the least and the greatest of what they can become
            from_template(template, number, number)
    except Invalid:
        raise ValueError(
            f"it must make the MAC address of an interface, of {{prefix}} ({PREFIX}), {{vmid}} and {{netid}} (one "
            "hexadecimal digit each), such as {prefix}:ff:f6:{vmid}{netid}"
        ) from None
    return template.lower()


def read_disk_id(text: object) -> str:
    """What a disk is called in its VM."""
    if not _DISK_ID.fullmatch(str(text)):
        raise ValueError("a disk is called sda, sdb ... or vda, vdb ...")
    return str(text)


def read_filesystem_arg(text: object) -> str:
    """One option of mkfs with its value, in one word."""
    if not _FILESYSTEM_ARG.fullmatch(str(text)) or len(str(text)) > MAX_WORD:
        raise ValueError(
            "write -x=value or --option=value; a value begins with a letter, a digit or '^', and holds letters, digits "
            f"and . _ , : = + ^ @ % -, {MAX_WORD} characters in all"
        )
    return str(text)


def read_mountpoint(text: object) -> str:
    """An absolute path, normalised, that leads nowhere else."""
    path = str(text)
    parts = [part for part in path.split("/") if part]
    if not path.startswith("/") or len(path) > MAX_PATH:
        raise ValueError(f"it must be an absolute path, such as /var/log, of at most {MAX_PATH} characters")
    if any(part == ".." or not _PART_OF_PATH.fullmatch(part) for part in parts):
        raise ValueError("its parts hold letters, digits and . _ + @ : - and none of them is '..'")
    return "/" + "/".join(part for part in parts if part != ".")


def read_argument(text: object) -> str:
    """One argument of a script, `key=value`."""
    key, equals, value = str(text).partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise ValueError("write key=value; the key holds letters, digits and '_' and does not begin with a digit")
    if key in GIVEN:
        raise ValueError(f"{key} is given to every script")
    if len(value) > MAX_VALUE:
        raise ValueError(f"its value has more than {MAX_VALUE} characters")
    return str(text)


def all_different(arguments: list[str] | None) -> tuple[str, ...]:
    """The arguments of a script, each key once."""
    keys = [argument.partition("=")[0] for argument in arguments or ()]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise Invalid(f"arg {twice!r} is given more than once.")
    if sum(map(len, arguments or ())) > MAX_ARGUMENTS:
        raise Invalid(f"The arguments have more than {MAX_ARGUMENTS} characters together.")
    return tuple(arguments or ())
