"""Each argument of the storage endpoints, described once."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, WithJsonSchema

from pvcd import Flag, Name, Path, Value
from pvcd_plugins.ceph.cluster import OPTIONS

UNITS = "BKMGTP"
"""Each is 1024 times the previous one."""
_SIZE = re.compile(rf"([0-9]{{1,20}})([{UNITS}]?)", re.IGNORECASE)
_REPLICATION = re.compile(r"copies=([0-9]{1,3}),mincopies=([0-9]{1,3})")


def read_size(text: object) -> int:
    """Return the bytes of a number with an optional unit."""
    match = _SIZE.fullmatch(str(text))
    if not match or not int(match[1]):
        raise ValueError("must be a whole number with an optional unit B, K, M, G, T or P, such as 20G")
    factor: int = 1024 ** UNITS.index(match[2].upper() or "B")
    return int(match[1]) * factor


class Replication(NamedTuple):
    """The number of copies that a pool keeps, and the number that it needs for reads and writes."""

    copies: int
    mincopies: int


def read_replication(text: object) -> Replication:
    """Read `copies=N,mincopies=M`."""
    match = _REPLICATION.fullmatch(str(text))
    if not match:
        raise ValueError("must be copies=N,mincopies=M, such as copies=3,mincopies=2")
    return Replication(int(match[1]), int(match[2]))


def read_device(text: object) -> str:
    """Read a path below /dev, which its node checks further."""
    if not re.fullmatch(r"/dev(/[A-Za-z0-9_][A-Za-z0-9._:+-]*)+", str(text)):
        raise ValueError("must be a path below /dev, such as /dev/sdb")
    return str(text)


Bytes = Annotated[
    int, BeforeValidator(read_size), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,20}[BKMGTPbkmgtp]?$"})
]
Copies = Annotated[
    Replication,
    BeforeValidator(read_replication),
    WithJsonSchema({"type": "string", "pattern": f"^{_REPLICATION.pattern}$"}),
]
DevicePath = Annotated[str, BeforeValidator(read_device), WithJsonSchema({"type": "string", "pattern": "^/dev/.+$"})]

Action = Annotated[Literal["set", "unset"], Value("Whether to set or to unset the flag")]
Option = Annotated[str, Value("A flag of all OSDs", choices=OPTIONS)]

OsdId = Annotated[str, Path("Id of the OSD")]
OsdLimit = Annotated[str | None, Value("Regular expression that must match a part of the OSD's id", name="limit")]
OnNode = Annotated[Name, Value("Node with the device", name="node", names=True)]
Device = Annotated[DevicePath, Value("Unused block device of the node, such as `/dev/sdb`")]
Weight = Annotated[float, Field(ge=0, le=10_000), Value("CRUSH weight, usually 1.0 if all disks have the same size")]
InOrOut = Annotated[Literal["in", "out"], Value("`out` moves its data to other OSDs, `in` takes data", name="state")]
Confirmed = Annotated[bool, Flag("Confirm that data may be lost", name="yes_i_really_mean_it")]
ConfirmedToo = Annotated[bool, Flag("Confirm that data may be lost", name="yes-i-really-mean-it")]

PoolName = Annotated[str, Path("Name of the pool")]
PoolLimit = Annotated[str | None, Value("Regular expression that must match a part of the pool's name", name="limit")]
NewPool = Annotated[Name, Value("Name of the new pool", name="pool", names=True)]
Pgs = Annotated[int, Field(ge=1, le=65536), Value("Number of placement groups; 256 suits six OSDs")]
Replcfg = Annotated[Copies, Value("Number of copies to keep, and number required for reads and writes")]

VolumeName = Annotated[str, Path("Name of the volume")]
VolumeLimit = Annotated[
    str | None,
    Value("Regular expression that must match a part of `volume` or `pool/volume`", name="limit"),
]
InPool = Annotated[str | None, Value("Only list those in this pool", name="pool", names=True)]
OfVolume = Annotated[str | None, Value("Only list those of volumes with this name", name="volume", names=True)]
ThePool = Annotated[Name, Value("Name of the pool", name="pool", names=True)]
TheVolume = Annotated[Name, Value("Name of the volume", name="volume", names=True)]
Size = Annotated[Bytes | None, Value("Size in bytes, or a number with a unit B, K, M, G, T or P")]
Source = Annotated[
    Name | None, Value("Volume of the same pool to copy, with its size", name="source_volume", names=True)
]
NewName = Annotated[Name | None, Value("New name", name="name", names=True)]
Shrink = Annotated[bool, Flag("Allow a smaller size; data beyond the new end is lost")]

SnapshotName = Annotated[str, Path("Name of the snapshot")]
SnapshotLimit = Annotated[
    str | None,
    Value("Regular expression that must match a part of `snapshot` or `pool/volume@snapshot`", name="limit"),
]
NewSnapshot = Annotated[Name, Value("Name of the new snapshot", name="snapshot", names=True)]
RenamedTo = Annotated[Name, Value("New name", name="name", names=True)]
