"""Debian's cloud-init, run as in a guest: in a temporary copy of this root file system."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts import Host

LIMIT = 90.0
USER = "cloud"
_SCRIPT = """
out=$1
mount -t tmpfs tmpfs "$out/top"
cd "$out/top"
mkdir upper work root sys
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t sysfs -o ro sysfs sys
mount -t proc proc root/proc
for each in sys dev run tmp; do mount -t tmpfs tmpfs root/$each; done
mkdir -p root/sys/class/net root/sys/devices root/sys/class/dmi/id root/run/cloud-init root/dev/shm
mount --bind sys/class/net root/sys/class/net
mount --bind sys/devices root/sys/devices
cp "$out/serial" root/sys/class/dmi/id/product_serial
mount --bind /dev/null root/proc/cmdline
printf '#!/bin/sh\nexit 1\n' > root/usr/bin/systemd-detect-virt
chmod +x root/usr/bin/systemd-detect-virt
for each in null zero full random urandom; do touch root/dev/$each; mount --bind /dev/$each root/dev/$each; done
rm -rf root/var/lib/cloud root/var/log/cloud-init* root/etc/cloud/cloud.cfg.d root/etc/resolv.conf
cp "$out/cloud.cfg" root/etc/cloud/cloud.cfg
hostname untouched
finish() {
  hostname > "$out/hostname"
  for each in root/from-userdata home/USER/.ssh/authorized_keys run/cloud-init/instance-data.json; do
    [ ! -e root/$each ] || cp root/$each "$out"
  done
}
trap finish EXIT
run() { chroot root /usr/bin/cloud-init --debug "$@"; }
run init --local
run init
run modules --mode=config
run modules --mode=final
""".replace("USER", USER)


@dataclass(frozen=True)
class Outcome:
    """The results of cloud-init."""

    folder: Path

    def text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    @property
    def log(self) -> str:
        return self.text("log")


def needs_cloud_init() -> None:
    """Skip the test if cloud-init is not installed, but fail it in CI."""
    if not shutil.which("cloud-init"):
        missing = "cloud-init is not installed: apt install --no-install-recommends cloud-init"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


def boot(guest: Host, folder: Path, *, serial: str = "", **config: Any) -> Outcome:
    """The four stages of a first boot, in the network of a guest whose SMBIOS has a serial number."""
    (folder / "top").mkdir(parents=True)  # over which all is mounted, for its processes alone
    values = {
        "users": ["default"],
        "disable_root": True,
        "network": {"config": "disabled"},
        "ssh_deletekeys": False,
        "ssh_genkeytypes": [],
        "cloud_init_modules": ["write-files", "set_hostname", "users-groups", "ssh"],
        "cloud_config_modules": ["runcmd"],
        "cloud_final_modules": ["scripts-user", "final-message"],
        "system_info": {"distro": "debian", "default_user": {"name": USER, "lock_passwd": True, "shell": "/bin/bash"}},
    }
    (folder / "cloud.cfg").write_text(yaml.safe_dump(values | config))
    alone = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private", "--")
    (folder / "serial").write_text(serial)
    clean = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-euc", _SCRIPT, "boot", str(folder))
    with (folder / "log").open("wb") as log:
        done = subprocess.run(
            (*guest.inside, *alone, *clean),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=LIMIT,
        )
    outcome = Outcome(folder)
    assert done.returncode == 0, outcome.log[-5000:]
    return outcome
