"""The syntax of names, disks, MAC templates and arguments. A reader returns the value or raises `ValueError`."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TypeVar

from pvcd import Invalid, wrong_value
from pvcd_plugins.provisioner.macs import PREFIX, from_template

T = TypeVar("T")
MAX_NAME, MAX_VNI, MAX_WORD, MAX_PATH, MAX_VALUE = 128, 2**24 - 1, 128, 255, 4096
MAX_ARGUMENTS = 64 * 1024
"""Characters of all arguments of a script together."""
UNMOUNTABLE = ("swap",)
"""Filesystems that hold no files."""
GIVEN = ("vm_name", "vm_id", "temporary_directory", "disks", "networks")
"""The arguments that every install() gets."""
_DISK_ID = re.compile(r"[sv]d[a-z]{1,2}")
_FILESYSTEM_ARG = re.compile(r"(?:-[A-Za-z]|--[A-Za-z][A-Za-z0-9-]*)=[A-Za-z0-9^][A-Za-z0-9._,:=+^@%-]*")
_PART_OF_PATH = re.compile(r"[A-Za-z0-9._+@:-]+")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SECRET = re.compile(r"pass(word|wd|phrase)|token|secret|key", re.IGNORECASE)
NOT_SHOWN = "(not shown)"
"""Stands for the value of a secret argument."""
_VNI = re.compile(r"[1-9][0-9]{0,7}")


def read_vni(text: str) -> int:
    """Read the VNI of a network in a path. Raises `Invalid`."""
    if not _VNI.fullmatch(text) or int(text) > MAX_VNI:
        raise Invalid(wrong_value("vni", repr(text[:60]), f"must be a whole number from 1 to {MAX_VNI}"))
    return int(text)


def read_vnc_bind(text: object) -> str | None:
    """Read an IP address; empty for the default."""
    try:
        address = ip_address(str(text)) if text != "" else None
    except ValueError:
        raise ValueError("must be an IP address such as 127.0.0.1") from None
    if getattr(address, "scope_id", None):
        raise ValueError("must be an IP address without a link")
    return None if address is None else str(address)


def read_mac_template(text: object) -> str | None:
    """Read a MAC address with placeholders; empty for random addresses."""
    if text == "":
        return None
    template = str(text)
    try:
        for number in (0, 15):  # the least and the greatest digit
            from_template(template, number, number)
    except Invalid:
        raise ValueError(
            f"must be the MAC address of an interface, with {{prefix}} ({PREFIX}), {{vmid}} and {{netid}} (one "
            "hexadecimal digit each), such as {prefix}:ff:f6:{vmid}{netid}"
        ) from None
    return template.lower()


def read_disk_id(text: object) -> str:
    """Read the id of a disk in its VM."""
    if not _DISK_ID.fullmatch(str(text)):
        raise ValueError("must be sda, sdb and so on, or vda, vdb and so on")
    return str(text)


def read_filesystem_arg(text: object) -> str:
    """Read an option of mkfs with its value, in one word."""
    if not _FILESYSTEM_ARG.fullmatch(str(text)) or len(str(text)) > MAX_WORD:
        raise ValueError(
            f"must be -x=value or --option=value, at most {MAX_WORD} characters, with a value of a letter, digit or "
            "'^', then letters, digits and . _ , : = + ^ @ % -"
        )
    return str(text)


def read_mountpoint(text: object) -> str:
    """Read an absolute path without `..`, and normalize it."""
    path = str(text)
    parts = [part for part in path.split("/") if part]
    if not path.startswith("/") or len(path) > MAX_PATH:
        raise ValueError(f"must be an absolute path such as /var/log, at most {MAX_PATH} characters")
    if any(part == ".." or not _PART_OF_PATH.fullmatch(part) for part in parts):
        raise ValueError("must have parts of letters, digits and . _ + @ : - only, none of them '..'")
    return "/" + "/".join(part for part in parts if part != ".")


def read_argument(text: object) -> str:
    """Read an argument of a script, `key=value`."""
    key, equals, value = str(text).partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise ValueError(
            "must be key=value, where the key is a letter or '_', then letters, digits and '_', at most 64 characters"
        )
    if key in GIVEN:
        raise ValueError(f"{key} is given to every script")
    if len(value) > MAX_VALUE:
        raise ValueError(f"must have a value of at most {MAX_VALUE} characters")
    return str(text)


def is_secret(argument: str) -> bool:
    """Tell whether the key of an argument, `key=value`, says that its value is a secret."""
    return _SECRET.search(argument.partition("=")[0]) is not None


def without_secrets(arguments: list[str] | None) -> list[str] | None:
    """Return arguments with the values of secrets replaced."""
    if arguments is None:
        return None
    return [f"{each.partition('=')[0]}={NOT_SHOWN}" if is_secret(each) else each for each in arguments]


def all_different(arguments: list[str] | None) -> tuple[str, ...]:
    """Return the arguments of a script. Raises `Invalid` for a key that is given twice."""
    keys = [argument.partition("=")[0] for argument in arguments or ()]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise Invalid(f"arg must be given once for each key; got {twice!r} more than once.")
    size = sum(map(len, arguments or ()))
    if size > MAX_ARGUMENTS:
        raise Invalid(f"arg must have at most {MAX_ARGUMENTS} characters in all; got {size}.")
    return tuple(arguments or ())
