"""The variables of a VM that is being built, each with its source. Of two with one name the later one counts:

    defaults < templates < profile < request

Userdata is rendered with all of them; `install()` gets those of the profile and the request, its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pvcd import Invalid, wrong_value
from pvcd_plugins.provisioner.grammar import GIVEN, NOT_SHOWN, is_secret, read_argument

RESERVED = (*GIVEN, "arguments", "profile", "vm_uuid")
"""Names that no argument may have because every VM has them."""
SHORT_SECRET = 6
"""Fewer characters than this are found in other words by chance."""
MAX_SECRETS = 64
"""Secret arguments of a VM: each line of its script's output is searched for all of them."""


class Level(IntEnum):
    """Where a value comes from; the greatest counts."""

    DEFAULT = 1
    TEMPLATE = 2
    PROFILE = 3
    REQUEST = 4


@dataclass(frozen=True, slots=True)
class Variable:
    """A value; `source` is for people: "profile 'web'"."""

    name: str
    value: Any
    level: Level
    source: str
    is_argument: bool = False
    is_secret: bool = False


class Variables:
    """The effective values by name."""

    def __init__(self, variables: Iterable[Variable]) -> None:
        """Keep the last of those with one name and level. Raises `Invalid` for too many secrets."""
        ordered = sorted(variables, key=lambda variable: variable.level)
        self._variables = {variable.name: variable for variable in ordered}
        secrets = [str(each.value) for each in self._variables.values() if each.is_secret]
        if len(secrets) > MAX_SECRETS:
            raise Invalid(f"A VM must have at most {MAX_SECRETS} secret arguments; got {len(secrets)}.")
        texts = {text for secret in secrets for text in (secret, repr(secret)[1:-1]) if text.strip()}
        self._long = sorted((text for text in texts if len(text) >= SHORT_SECRET), key=len, reverse=True)
        short = sorted((re.escape(text) for text in texts if len(text) < SHORT_SECRET), key=len, reverse=True)
        self._short = re.compile(rf"(?<!\w)(?:{'|'.join(short)})(?!\w)") if short else None

    def get(self, name: str, otherwise: Any = None) -> Any:
        """Return a value."""
        found = self._variables.get(name)
        return otherwise if found is None else found.value

    def arguments(self) -> dict[str, str]:
        """Return what `install()` gets in addition to what every script gets."""
        return {each.name: each.value for each in self._variables.values() if each.is_argument}

    def values(self) -> dict[str, Any]:
        """Return what userdata is rendered with: each value by its name, and `arguments`."""
        return {name: each.value for name, each in self._variables.items()} | {"arguments": self.arguments()}

    def shown(self) -> list[dict[str, Any]]:
        """Return the name, value and source of each, sorted by name."""
        return [
            {"name": name, "value": NOT_SHOWN if each.is_secret else each.value, "source": each.source}
            for name, each in sorted(self._variables.items())
        ]

    def redacted(self, text: str) -> str:
        """Return a text without secrets, as they are and as Python shows them. Short ones are found as words only."""
        for secret in self._long:
            text = text.replace(secret, NOT_SHOWN)
        return self._short.sub(NOT_SHOWN, text) if self._short else text


def values_of(level: Level, source: str, values: Mapping[str, Any]) -> list[Variable]:
    """Return the variables of one source."""
    return [Variable(name, value, level, source) for name, value in values.items()]


def arguments_of(level: Level, source: str, arguments: Iterable[str], *, secret: bool = False) -> list[Variable]:
    """Return the arguments of a profile or a request, `name=value` each. Raises `Invalid` for a reserved name.

    They are secrets if the caller, or the name, says so. A secret is printable: an output shows it as it is.
    """
    found = []
    for argument in arguments:
        hidden = secret or is_secret(argument)
        shown = repr(f"{argument.partition('=')[0]}={NOT_SHOWN}" if hidden else argument[:60])
        try:
            name, _, value = read_argument(argument).partition("=")
        except ValueError as error:
            raise Invalid(wrong_value(f"arg of {source}", shown, str(error))) from None
        if hidden and not value.isprintable():
            rule = "must be printable characters only, so that the secret is found wherever it must not be shown"
            raise Invalid(wrong_value(f"arg of {source}", shown, rule))
        if name in RESERVED:
            raise Invalid(wrong_value(f"arg of {source}", shown, f"every VM has a variable {name}"))
        found.append(Variable(name, value, level, source, is_argument=True, is_secret=hidden))
    return found


def vm_id_of(name: str) -> int:
    """Return the last number in the name of a VM, or 0."""
    numbers = re.findall(r"[0-9]+", name)
    return int(numbers[-1]) if numbers else 0


def sample_values() -> dict[str, Any]:
    """Return the values with which a userdata template is tried: everything that every VM has."""
    disk = {"pool": "vms", "disk_id": "sda", "disk_size_gb": 8, "mountpoint": "/", "filesystem": "ext4"}
    return {
        "vm_name": "web1",
        "vm_id": 1,
        "vm_uuid": "00000000-0000-4000-8000-000000000001",
        "profile": "web",
        "vcpus": 1,
        "vram": 1024,
        "networks": [{"vni": 200, "mac": "52:54:00:00:00:01"}],
        "disks": [disk],
    }
