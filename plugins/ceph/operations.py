"""The operations of storage that share a route."""

from __future__ import annotations

from pvcd import OperationKind

_VOLUME = {
    "pool": {"type": "string", "description": "Name of the pool"},
    "volume": {"type": "string", "description": "Name of the volume"},
}
RENAME = "ceph-volume-rename"
RESIZE = "ceph-volume-resize"
OPERATIONS = [
    OperationKind(
        RENAME, "Rename a volume.", "api", {**_VOLUME, "new": {"type": "string", "description": "Its new name"}}
    ),
    OperationKind(
        RESIZE,
        "Resize a volume.",
        "api",
        {
            **_VOLUME,
            "size": {"type": "integer", "description": "Its new size in bytes"},
            "shrink": {"type": "boolean", "description": "Whether it may become smaller"},
        },
    ),
]
