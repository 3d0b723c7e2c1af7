"""The state of a machine that is off: its UEFI variables, that of its TPM, and the log of its console.

All are kept on the node by the guest's UUID. libvirt alone names the file of the variables after the guest's name, so
that the next guest of that name reads them, and removes the state of the TPM at the end of each transient guest.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from lxml import etree

LOGS = (".log", ".log.0")
"""The endings of a console's log, and of its part before the last rotation."""


@dataclass(frozen=True)
class NonvolatileState:
    """Where it is kept."""

    directory: Path
    """Has a directory for each guest, named by its UUID; in it are the UEFI variables."""
    tpm_directory: Path
    """libvirt's own, which keeps there the state of emulated TPMs by UUID, also those of guests that are not ours."""
    console_directory: Path
    """Has the logs of consoles by UUID, and may have logs of others by name."""

    def keep(self, uuid: UUID, xml: str) -> str:
        """Return the document of a guest that keeps its state, after making the place for it."""
        kept = kept_at(xml, self.directory / str(uuid) / "uefi-variables.fd")
        if kept is None:
            return xml
        for directory in (self.directory, self.directory / str(uuid)):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        return kept

    def kept(self) -> set[UUID]:
        """Return the guests of which there is state."""
        found = set()
        for directory, suffixes in ((self.directory, [""]), (self.console_directory, LOGS)):
            with contextlib.suppress(FileNotFoundError):
                for each in directory.iterdir():
                    with contextlib.suppress(ValueError):
                        uuid = UUID(each.name.partition(".")[0])
                        found |= {uuid} if each.name in [f"{uuid}{suffix}" for suffix in suffixes] else set()
        return found

    def forget(self, uuid: UUID) -> None:
        """Remove the state of a guest; its directory goes last, so that an interrupted removal can be repeated."""
        own = self.directory / str(uuid)
        for directory in (self.tpm_directory / str(uuid), own) if own.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(directory)
        for suffix in LOGS:
            Path(self.console_directory, f"{uuid}{suffix}").unlink(missing_ok=True)


def kept_at(xml: str, variables: Path) -> str | None:
    """Return the document of a guest that keeps its state, its UEFI variables in a file; None if it has no state.

    A document that names a file for them, or says whether the TPM's state persists, is left as it is.
    """
    root = etree.fromstring(xml.encode(), etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True))
    backends = root.findall("devices/tpm/backend[@type='emulator']")
    for backend in backends:
        backend.set("persistent_state", backend.get("persistent_state", "yes"))
    os, place = root.find("os"), root.find("os/nvram")
    uefi = os is not None and _has_uefi(os)
    if os is not None and uefi:
        place = etree.SubElement(os, "nvram") if place is None else place
        if not _names_file(place):
            etree.strip_attributes(place, "type")
            place[:] = []
            place.text = str(variables)
    return etree.tostring(root, encoding="unicode") if uefi or backends else None


def _names_file(nvram: etree._Element) -> bool:
    """Return whether libvirt takes a file from the element: from its source if it has a type, else from its text."""
    if nvram.get("type") is None:
        return bool((nvram.text or "").strip())
    source = nvram.find("source")
    return source is not None and bool(source.attrib)


def _has_uefi(os: etree._Element) -> bool:
    loader = os.find("loader")
    if loader is None:
        return os.get("firmware") == "efi"
    return loader.get("stateless") != "yes" and (os.get("firmware") == "efi" or loader.get("type") == "pflash")
