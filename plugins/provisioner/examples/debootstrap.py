"""A Debian that boots, with cloud-init, on one disk with one file system mounted at /.

Arguments of the profile: deb_release (bookworm), deb_mirror (http://deb.debian.org/debian) and deb_packages, a list
separated by commas that is installed as well. The disk is an ext4 made with filesystem_arg=-O=^64bit,^metadata_csum, so
that the boot loader can read it. Workers need Debian's packages debootstrap and extlinux.
"""

import pathlib
import subprocess

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
  append root={root} rw console=ttyS0
"""
INTERFACES = "auto lo\niface lo inet loopback\nallow-hotplug {link}\niface {link} inet dhcp\n"


def install(**kwargs):
    root = pathlib.Path(kwargs["temporary_directory"])
    packages = ",".join(filter(None, (PACKAGES, kwargs.get("deb_packages"))))
    release = kwargs.get("deb_release", "bookworm")
    mirror = kwargs.get("deb_mirror", "http://deb.debian.org/debian")
    run("debootstrap", "--variant=minbase", f"--include={packages}", release, str(root), mirror)
    disk = next(disk for disk in kwargs["disks"] if disk["mountpoint"] == "/")
    device = f"/dev/{disk['disk_id']}"
    (root / "etc/fstab").write_text(f"{device} / {disk['filesystem']} errors=remount-ro 0 1\n")
    (root / "etc/hostname").write_text(f"{kwargs['vm_name']}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {kwargs['vm_name']}\n")
    (root / "etc/network/interfaces").write_text(INTERFACES.format(link="ens2"))
    (root / "etc/cloud/cloud.cfg.d/90-pvc.cfg").write_text("datasource_list: [NoCloud, None]\n")
    (root / "boot/extlinux").mkdir()
    (root / "boot/extlinux/extlinux.conf").write_text(LOADER.format(root=device))
    run("extlinux", "--install", str(root / "boot/extlinux"))
    run("chroot", str(root), "apt-get", "clean")


def run(*command):
    print("+", *command, flush=True)
    subprocess.run(command, check=True)
