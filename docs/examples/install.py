"""Leaves a note in the VM's first disk."""

from pathlib import Path


def install(**kwargs):
    """Called when the disks are formatted and mounted below temporary_directory."""
    packages = kwargs.get("packages", "no packages")
    motd = kwargs.get("motd", "Welcome")
    note = Path(kwargs["temporary_directory"]) / "etc" / "motd"
    note.parent.mkdir(exist_ok=True)
    note.write_text(f"This is {kwargs['vm_name']}, with {packages}. {motd}\n")
