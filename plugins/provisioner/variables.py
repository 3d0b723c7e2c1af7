"""What is known of a VM that is being made, each value with its source; of two of one name the later one counts.

    defaults < templates < profile < request

Userdata is rendered with all of them; `install()` gets the arguments, which are those of the profile and the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pvcd import Invalid
from pvcd_plugins.provisioner.grammar import GIVEN, read_argument

RESERVED = (*GIVEN, "arguments", "profile", "vm_uuid")
"""What no argument may be called, since all VMs have it."""


class Level(IntEnum):
    """Where a value comes from; the greater one counts."""

    DEFAULT = 1
    TEMPLATE = 2
    PROFILE = 3
    REQUEST = 4


@dataclass(frozen=True, slots=True)
class Variable:
    """One value; `source` is for people: "profile 'web'"."""

    name: str
    value: Any
    level: Level
    source: str
    is_argument: bool = False


class Variables:
    """The values that count, by name."""

    def __init__(self, variables: Iterable[Variable]) -> None:
        """Of those of one name and one level the last one counts."""
        ordered = sorted(variables, key=lambda variable: variable.level)
        self._variables = {variable.name: variable for variable in ordered}

    def get(self, name: str, otherwise: Any = None) -> Any:
        """A value."""
        found = self._variables.get(name)
        return otherwise if found is None else found.value

    def arguments(self) -> dict[str, str]:
        """What `install()` gets beside what every script gets."""
        return {each.name: each.value for each in self._variables.values() if each.is_argument}

    def values(self) -> dict[str, Any]:
        """What userdata is rendered with: each by its name, and all arguments together."""
        return {name: each.value for name, each in self._variables.items()} | {"arguments": self.arguments()}

    def shown(self) -> list[dict[str, Any]]:
        """Name, value and source of each, by name."""
        return [
            {"name": name, "value": each.value, "source": each.source} for name, each in sorted(self._variables.items())
        ]


def values_of(level: Level, source: str, values: Mapping[str, Any]) -> list[Variable]:
    """What is known from one source."""
    return [Variable(name, value, level, source) for name, value in values.items()]


def arguments_of(level: Level, source: str, arguments: Iterable[str]) -> list[Variable]:
    """The `name=value` of a profile or a request. Raises `Invalid` for a name that is not free."""
    found = []
    for argument in arguments:
        try:
            name, _, value = read_argument(argument).partition("=")
        except ValueError as error:
            raise Invalid(f"The argument {argument[:60]!r} of the {source} is not valid: {error}.") from None
        if name in RESERVED:
            raise Invalid(
                f"The argument {name!r} of the {source} has the name of what all VMs have: choose another one."
            )
        found.append(Variable(name, value, level, source, is_argument=True))
    return found


def vm_id_of(name: str) -> int:
    """The last number in the name of a VM; 0 when there is none."""
    numbers = re.findall(r"[0-9]+", name)
    return int(numbers[-1]) if numbers else 0


def sample_values() -> dict[str, Any]:
    """What a template of userdata is tried with: all that every VM has, and arguments of any name."""
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
