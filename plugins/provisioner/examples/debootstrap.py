"""A bootable Debian with cloud-init, on one disk with one filesystem mounted at /.

Arguments of the profile: deb_release (bookworm), deb_mirror (http://deb.debian.org/debian) and deb_packages, additional
packages separated by commas. The disk is an ext4 with filesystem_arg=-O=^64bit,^metadata_csum so that the boot loader
can read it. Task workers need Debian's packages debootstrap and extlinux.

A task worker that reaches no mirror takes the packages from a file, deb_tarball=/path/to/bookworm.tar. Create it on a
machine that reaches a mirror, with the same arguments, as root:

    python3 debootstrap.py /path/to/bookworm.tar deb_release=bookworm deb_packages=vim,less

The installed system has no host name; cloud-init sets that of the metadata.
"""

import pathlib
import subprocess
import sys
import tempfile

PACKAGES = (
    "linux-image-cloud-amd64,systemd-sysv,ifupdown,isc-dhcp-client,iproute2,openssh-server,sudo,"
    "cloud-init,python3-cffi-backend"  # debootstrap cannot resolve what the last one provides
)
LOADER = """\
default linux
prompt 0
timeout 0
label linux
  linux /vmlinuz
  initrd /initrd.img
  append root=UUID={uuid} rw console=ttyS0
"""


def install(**kwargs):
    root = pathlib.Path(kwargs["temporary_directory"])
    disk = next(disk for disk in kwargs["disks"] if disk["mountpoint"] == "/")
    # Nothing has to be synced before the end, when everything is written back.
    hasty = root / "etc/dpkg/dpkg.cfg.d/hasty"
    hasty.parent.mkdir(parents=True)
    hasty.write_text("force-unsafe-io\n")
    tarball = kwargs.get("deb_tarball")
    debootstrap(root, kwargs, *([f"--unpack-tarball={tarball}"] if tarball else []))
    hasty.unlink()
    uuid = run(
        "blkid", "--match-tag", "UUID", "--output", "value", disk["device"], stdout=subprocess.PIPE
    ).stdout.strip()
    (root / "etc/fstab").write_text(f"UUID={uuid} / {disk['filesystem']} errors=remount-ro 0 1\n")
    # Replace what debootstrap has copied from the task worker.
    (root / "etc/hostname").write_text("localhost\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
    (root / "etc/resolv.conf").unlink()
    (root / "etc/cloud/cloud.cfg.d/90-pvc.cfg").write_text("datasource_list: [NoCloud, None]\n")
    (root / "boot/extlinux").mkdir()
    (root / "boot/extlinux/extlinux.conf").write_text(LOADER.format(uuid=uuid))
    run("extlinux", "--install", root / "boot/extlinux")
    run("chroot", root, "apt-get", "clean")


def debootstrap(target, arguments, *options):
    packages = ",".join(filter(None, (PACKAGES, arguments.get("deb_packages"))))
    release = arguments.get("deb_release", "bookworm")
    mirror = arguments.get("deb_mirror", "http://deb.debian.org/debian")
    run("debootstrap", "--variant=minbase", f"--include={packages}", *options, release, target, mirror)


def run(*command, **more):
    print("+", *command, flush=True)
    return subprocess.run(command, check=True, text=True, **more)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        arguments = dict(word.split("=", 1) for word in sys.argv[2:])
        debootstrap(scratch, arguments, f"--make-tarball={sys.argv[1]}")
