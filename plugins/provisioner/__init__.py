"""The provisioner: templates, scripts and profiles, from which VMs are built."""

from typing import Any

import click

from pvcd import PLUGIN_API_1, Component, Handlers, Record, Routes, SettingsSection, Step, TemplateFilter, hookimpl
from pvcd_plugins.provisioner import (
    cli,
    components,
    handlers,
    inspection,
    records,
    routes,
    settings,
    steps,
    userdata,
    views,
)
from pvcd_plugins.provisioner.metadata import components as metadata_components
from pvcd_plugins.provisioner.metadata import settings as metadata_settings

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.provisioner and pvc.metadata"""
    return [settings.SECTION, metadata_settings.SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """Templates, scripts and profiles."""
    return [
        records.Counter,
        records.SystemTemplate,
        records.NetworkTemplate,
        records.StorageTemplate,
        records.UserdataTemplate,
        records.Script,
        records.Profile,
        records.Built,
    ]


@hookimpl
def register_components() -> list[Component[Any]]:
    """What looks at scripts and runs them, and renders userdata; the metadata API; in the API all, encoded."""
    return [
        *components.COMPONENTS,
        *inspection.COMPONENTS,
        *userdata.COMPONENTS,
        *views.COMPONENTS,
        metadata_components.component(handlers.describe),
    ]


@hookimpl
def register_routes() -> list[Routes]:
    """The manual's chapter: the provisioner."""
    return routes.ROUTES


@hookimpl
def register_handlers() -> list[Handlers]:
    """The primary holds the metadata address, and forgets what VMs were told that are gone."""
    return [handlers.primary, metadata_components.primary]


@hookimpl
def register_steps() -> list[Step]:
    """How a VM is built."""
    return steps.STEPS


@hookimpl
def register_template_filters() -> list[TemplateFilter]:
    """For userdata: Base64, JSON, YAML and words of a shell."""
    return userdata.FILTERS


@hookimpl
def register_commands() -> list[click.Command]:
    """pvcd examples"""
    return [cli.examples]
