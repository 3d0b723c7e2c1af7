"""For a disk that is a copy of a golden image: gives the copy its own name, and removes its machine id and SSH keys.

The storage template has a disk with source_volume, filesystem and mountpoint /.
"""

import pathlib


def install(**kwargs):
    root = pathlib.Path(kwargs["temporary_directory"])
    (root / "etc/hostname").write_text(f"{kwargs['vm_name']}\n")
    for name in ("etc/machine-id", "var/lib/dbus/machine-id"):
        if (root / name).exists():
            (root / name).write_text("")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    print(f"{kwargs['vm_name']} has its own name, and creates its own keys at the first boot")
