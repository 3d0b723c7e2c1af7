"""What a worker opens to build VMs: where the scripts run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pvcd import Component, ComponentKey, Context, Role
from pvcd_plugins.provisioner.installation import Installation

INSTALLATION: ComponentKey[Installation] = ComponentKey("installation")


@contextlib.asynccontextmanager
async def open_installation(context: Context) -> AsyncIterator[Installation]:
    """Children of this process."""
    from pvcd_plugins.provisioner.installation.child import ChildInstallation

    yield ChildInstallation()


@contextlib.asynccontextmanager
async def fake_installation(context: Context) -> AsyncIterator[Installation]:
    """That of a simulated cluster."""
    from pvcd_plugins.provisioner.installation.fake import FakeInstallation

    yield FakeInstallation(context.clock)


COMPONENTS: list[Component[Any]] = [
    Component(INSTALLATION, open_installation, roles=(Role.WORKER,), fake=fake_installation)
]
