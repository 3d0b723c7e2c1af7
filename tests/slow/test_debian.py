"""A real Debian: installed by debootstrap, told who it is by the metadata when it boots, and removed with its disks."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvcd_plugins.sandbox import network
from pvcd_plugins.sandbox.cluster import FILES
from tests.integration.cluster import CACHE, Cluster
from tests.integration.provisioner import BOOTABLE, EXAMPLES, PROVISIONER, Provisioner

pytestmark = [pytest.mark.usefixtures("no_vm_left"), pytest.mark.timeout(1500)]
SCRIPT = EXAMPLES / "debootstrap.py"
RELEASE = "bookworm"
DOWNLOAD_SECONDS = BUILD_SECONDS = 600.0
BOOT_SECONDS = 480.0
USERDATA = "#cloud-config\nhostname: told-{{ vm_name }}\n"
"""Who shows this name has asked the metadata: no other server says it, and nothing that is installed."""


@pytest.fixture(scope="module")
def packages(sandbox_cluster: Cluster) -> Iterator[Path]:
    """The packages as one file, downloaded from where apt gets this machine's and kept, at a place that scripts see."""
    recipe = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:8]
    kept = CACHE / "debian" / f"{RELEASE}-{recipe}.tar"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with (kept.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            download(kept)
    files = sandbox_cluster.directory / FILES
    files.mkdir(exist_ok=True)
    shown = Path(shutil.copy(kept, files))
    yield shown
    shown.unlink()


def download(file: Path) -> None:
    """Let the script itself collect the packages; skip where it cannot, but where CI is set that is a failure."""
    scratch = file.with_suffix(".part")
    script = (sys.executable, str(SCRIPT), str(scratch), f"deb_release={RELEASE}")
    try:
        output(*network.outside(), *script, f"deb_mirror={mirror()}", seconds=DOWNLOAD_SECONDS, **proxies())
    except subprocess.SubprocessError as error:
        missing = f"The packages cannot be had: {error}: {str(getattr(error, 'stdout', ''))[-2000:]}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    scratch.rename(file)


def mirror() -> str:
    """Where apt gets the packages of this release from; nothing if it does not."""
    wanted = ("Created-By: Packages", f"Codename: {RELEASE}", "Component: main")
    return output("apt-get", "indextargets", "--format", "$(SITE)", *wanted).partition("\n")[0]


def proxies() -> dict[str, str]:
    """Return the proxies of apt, as environment variables."""
    options = {f"{kind}_proxy": f"Acquire::{kind}::Proxy" for kind in ("http", "https")}
    found = {name: output("apt-config", "dump", "--format", "%v", option) for name, option in options.items()}
    return {name: proxy for name, proxy in found.items() if proxy}


def output(*command: str, seconds: float = 60.0, **environment: str) -> str:
    """All that a command has written, which must succeed."""
    return subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        env=os.environ | environment,
    ).stdout.strip()


def test_a_debian_is_installed_boots_with_the_name_of_its_metadata_and_goes_with_its_disks(
    cluster: Cluster, provisioner: Provisioner, packages: Path
) -> None:
    cluster.post(f"{PROVISIONER}/template/system", name="debian", vcpus=1, vram=512, serial="true")
    provisioner.storage("debian", disk_size=2, filesystem_arg=BOOTABLE)
    cluster.post(f"{PROVISIONER}/template/userdata", name="told", data=USERDATA)
    cluster.post(f"{PROVISIONER}/script", name="debian", data=SCRIPT.read_text())
    templates = {"system_template": "debian", "storage_template": "debian", "userdata_template": "told"}
    arguments = [f"deb_release={RELEASE}", f"deb_tarball={packages}"]
    provisioner.profile("debian", script="debian", arg=arguments, **templates)
    task = provisioner.ended(provisioner.create("deb1", "debian"), BUILD_SECONDS)
    assert task["state"] == "SUCCESS", log(cluster, task["task_id"])

    def console() -> str:
        return str(cluster.get("/vm/deb1/console", lines=1000)["data"])

    try:
        cluster.until(lambda: "told-deb1 login:" in console(), BOOT_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {console()}") from None
    cluster.delete("/vm/deb1", delete_disks="true")
    assert provisioner.left() == []


def log(cluster: Cluster, task: str) -> str:
    return "\n".join(line["text"] for line in cluster.get(f"{PROVISIONER}/status/{task}/log"))
