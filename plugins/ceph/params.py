"""Each argument of the storage endpoints, described once."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, WithJsonSchema

from pvcd import Flag, Name, Path, Value
from pvcd_plugins.ceph.cluster import OPTIONS

UNITS = "BKMGTP"
"""Each is 1024 times the one before."""
_SIZE = re.compile(rf"([0-9]{{1,20}})([{UNITS}]?)", re.IGNORECASE)
_REPLICATION = re.compile(r"copies=([0-9]{1,3}),mincopies=([0-9]{1,3})")


def read_size(text: object) -> int:
    """Bytes, from a number and perhaps one letter."""
    match = _SIZE.fullmatch(str(text))
    if not match or not int(match[1]):
        raise ValueError("write bytes, or a whole number and one of B, K, M, G, T and P, such as 1073741824 or 20G")
    factor: int = 1024 ** UNITS.index(match[2].upper() or "B")
    return int(match[1]) * factor


class Replication(NamedTuple):
    """How often a pool keeps what it holds, and how much of that it needs to go on."""

    copies: int
    mincopies: int


def read_replication(text: object) -> Replication:
    """From `copies=N,mincopies=M`."""
    match = _REPLICATION.fullmatch(str(text))
    if not match:
        raise ValueError("write copies=N,mincopies=M, such as copies=3,mincopies=2")
    return Replication(int(match[1]), int(match[2]))


def read_device(text: object) -> str:
    """The path of something in /dev; its node looks at it more closely."""
    if not re.fullmatch(r"/dev(/[A-Za-z0-9_][A-Za-z0-9._:+-]*)+", str(text)):
        raise ValueError("a device is a path below /dev, such as /dev/sdb")
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

Action = Annotated[Literal["set", "unset"], Value("What to do")]
Option = Annotated[str, Value("A flag of all OSDs", choices=OPTIONS)]

OsdId = Annotated[str, Path("Id of the OSD")]
OsdLimit = Annotated[str | None, Value("A regular expression that the OSD's id must match somewhere", name="limit")]
OnNode = Annotated[Name, Value("The node that has the device", name="node", names=True)]
Device = Annotated[DevicePath, Value("An unused block device of the node, such as `/dev/sdb`")]
Weight = Annotated[float, Field(ge=0, le=10_000), Value("Its CRUSH weight, usually 1.0 if all disks are of one size")]
InOrOut = Annotated[Literal["in", "out"], Value("`out` moves its data elsewhere, `in` takes data again", name="state")]
Confirmed = Annotated[bool, Flag("That the danger is understood", name="yes_i_really_mean_it")]
ConfirmedToo = Annotated[bool, Flag("The same", name="yes-i-really-mean-it")]

PoolName = Annotated[str, Path("Name of the pool")]
PoolLimit = Annotated[str | None, Value("A regular expression that the pool's name must match somewhere", name="limit")]
NewPool = Annotated[Name, Value("Its name", name="pool", names=True)]
Pgs = Annotated[int, Field(ge=1, le=65536), Value("Its number of placement groups; 256 is sane for six OSDs")]
Replcfg = Annotated[Copies, Value("How often everything is kept, and how often it must be there to be used")]

VolumeName = Annotated[str, Path("Name of the volume")]
VolumeLimit = Annotated[
    str | None,
    Value("A regular expression that `volume` or `pool/volume` must match somewhere", name="limit"),
]
InPool = Annotated[str | None, Value("Only of this pool", name="pool", names=True)]
OfVolume = Annotated[str | None, Value("Only of volumes of this name", name="volume", names=True)]
ThePool = Annotated[Name, Value("The pool", name="pool", names=True)]
TheVolume = Annotated[Name, Value("The volume", name="volume", names=True)]
Size = Annotated[Bytes | None, Value("Its size: bytes, or a number and one of B, K, M, G, T and P")]
Source = Annotated[
    Name | None, Value("A volume of the same pool to copy; the size is then its own", name="source_volume", names=True)
]
NewName = Annotated[Name | None, Value("Its new name", name="name", names=True)]
Shrink = Annotated[bool, Flag("Let it become smaller, and lose what lies behind its new end")]

SnapshotName = Annotated[str, Path("Name of the snapshot")]
SnapshotLimit = Annotated[
    str | None,
    Value("A regular expression that `snapshot` or `pool/volume@snapshot` must match somewhere", name="limit"),
]
NewSnapshot = Annotated[Name, Value("Its name", name="snapshot", names=True)]
RenamedTo = Annotated[Name, Value("Its new name", name="name", names=True)]
