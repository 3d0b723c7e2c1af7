"""A guest that boots in seconds: a kernel and an initial RAM disk, on one disk with one filesystem.

The profile has arguments with their paths on the task workers, kernel=/path/to/vmlinuz and initrd=/path/to/initrd.gz,
and optionally append=... for the kernel's command line. The disk is an ext4 mounted at /, with the filesystem_arg
-O=^64bit,^metadata_csum so that the boot loader can read it. Task workers need Debian's package extlinux.
"""

import pathlib
import shutil
import subprocess

LOADER = """\
default tiny
prompt 0
timeout 0
label tiny
  linux /boot/vmlinuz
  initrd /boot/initrd.gz
  append {append}
"""


def install(**kwargs):
    boot = pathlib.Path(kwargs["temporary_directory"], "boot")
    (boot / "extlinux").mkdir(parents=True)
    for name, source in (("vmlinuz", kwargs["kernel"]), ("initrd.gz", kwargs["initrd"])):
        print(f"copying {source}")
        shutil.copyfile(source, boot / name)
    append = kwargs.get("append", "console=ttyS0 quiet panic=1")
    (boot / "extlinux/extlinux.conf").write_text(LOADER.format(append=append))
    print("installing the boot loader")
    subprocess.run(["extlinux", "--install", str(boot / "extlinux")], check=True)
