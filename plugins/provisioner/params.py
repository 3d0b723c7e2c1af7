"""The arguments of the provisioner endpoints, each described once."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from pvcd import Document, Flag, Name, Path, Value
from pvcd_plugins.provisioner import grammar
from pvcd_plugins.provisioner.filesystems import FILESYSTEMS

_TEXT = WithJsonSchema({"type": "string"})

NameInPath = Annotated[str, Path("Its name")]
NewName = Annotated[Name, Value("Its name", name="name", names=True)]
Limit = Annotated[str | None, Value("A regular expression that the name must match somewhere")]
OfName = Annotated[str | None, Value("Only the one with exactly this name", name="name", names=True)]

Vcpus = Annotated[int, Field(ge=1, le=512), Value("Its virtual processors")]
Vram = Annotated[int, Field(ge=1, le=16 * 1024 * 1024), Value("Its memory in MiB")]
Serial = Annotated[bool, Flag("Give it a serial console")]
Vnc = Annotated[bool, Flag("Give it a VNC console")]
VncBind = Annotated[
    Annotated[str | None, BeforeValidator(grammar.read_vnc_bind), _TEXT],
    Value("The address on which its node listens for VNC; by default 127.0.0.1"),
]
NodeLimit = Annotated[
    list[Name] | None,
    Value("The nodes that it may run on, separated by commas; by default all", separator=",", names=True),
]
NodeSelector = Annotated[
    Name | None,
    Value("How a node is chosen: mem, vcpus, load, vms, or a plugin's selector; by default mem"),
]
StartWithNode = Annotated[bool, Flag("Start it the next time its node becomes ready")]

MacTemplate = Annotated[
    Annotated[str | None, BeforeValidator(grammar.read_mac_template), _TEXT],
    Value(
        "The form of MAC addresses, such as `{prefix}:ff:f6:{vmid}{netid}`; by default they are random. `{prefix}` is "
        "52:54:00, `{vmid}` and `{netid}` are the last hexadecimal digits of the VM's and the interface's number"
    ),
]
VniInPath = Annotated[str, Path("VNI of the network")]
Vni = Annotated[int, Field(ge=1, le=grammar.MAX_VNI), Value("The VNI of the network")]

DiskIdInPath = Annotated[str, Path("Id of the disk in its VM: `sda`, `sdb` ... or `vda`, `vdb` ...")]
DiskId = Annotated[
    Annotated[str, BeforeValidator(grammar.read_disk_id), _TEXT],
    Value("Id of the disk in its VM: `sda`, `sdb` ... or `vda`, `vdb` ..."),
]
Pool = Annotated[Name, Value("The Ceph pool of its volume", names=True)]
DiskSize = Annotated[
    int | None,
    Field(ge=1, le=1024 * 1024),
    Value("Its size in GB of 1024 MiB; required without `source_volume`"),
]
SourceVolume = Annotated[
    Name | None,
    Value("The volume of the same pool that it is a copy of", names=True),
]
Filesystem = Annotated[str | None, Value("Its filesystem; by default it stays empty", choices=tuple(FILESYSTEMS))]
FilesystemArgs = Annotated[
    list[Annotated[str, BeforeValidator(grammar.read_filesystem_arg), _TEXT]] | None,
    Value(
        "An option of mkfs as `-x=value` or `--option=value`, such as `-L=root`; may be repeated",
        name="filesystem_arg",
        repeated=True,
    ),
]
Mountpoint = Annotated[
    Annotated[str, BeforeValidator(grammar.read_mountpoint), _TEXT] | None,
    Value("Where it is mounted for the script, as an absolute path in the VM; requires `filesystem`"),
]

UserdataText = Annotated[str, Document("The userdata, a Jinja2 template of at most 256 KiB", name="data")]
ScriptText = Annotated[str, Document("The Python source, at most 256 KiB", name="data")]

SystemTemplateName = Annotated[Name, Value("The system template", name="system_template", names=True)]
NetworkTemplateName = Annotated[Name, Value("The network template", name="network_template", names=True)]
StorageTemplateName = Annotated[Name | None, Value("The storage template", name="storage_template", names=True)]
DiskTemplateName = Annotated[Name | None, Value("The same as `storage_template`", name="disk_template", names=True)]
UserdataTemplateName = Annotated[
    Name, Value("The userdata template; `empty` always exists", name="userdata_template", names=True)
]
ScriptName = Annotated[Name, Value("The script", name="script", names=True)]
Arguments = Annotated[
    list[Annotated[str, BeforeValidator(grammar.read_argument), _TEXT]] | None,
    Value(
        "An argument of the script as `key=value`; may be repeated. If the key contains password, passwd, passphrase, "
        "token, secret or key, it is a `secret_arg`",
        name="arg",
        repeated=True,
        redact=grammar.without_secrets,
    ),
]
SecretArguments = Annotated[
    list[Annotated[str, BeforeValidator(grammar.read_argument), _TEXT]] | None,
    Value(
        "An `arg` whose value is a secret: no task, log or site hook shows it; may be repeated",
        name="secret_arg",
        repeated=True,
        secret=True,
    ),
]
