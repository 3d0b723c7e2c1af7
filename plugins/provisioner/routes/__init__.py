"""The manual's chapter: the provisioner."""

from __future__ import annotations

from pvcd import Routes
from pvcd_plugins.provisioner.routes import creation, network, profile, script, storage, system, userdata

ROUTES: list[Routes] = [
    system.routes,
    network.routes,
    storage.routes,
    userdata.routes,
    script.routes,
    profile.routes,
    creation.routes,
]
