"""The provisioner: templates, scripts and profiles, from which VMs are built."""

from typing import Any

import click

from pvcd import PLUGIN_API_1, Component, Handlers, Record, Routes, SettingsSection, Step, TemplateFilter, hookimpl
from pvcd_plugins.provisioner import cli, components, handlers, records, routes, settings, steps, views
from pvcd_plugins.provisioner.programs import inspection, userdata

REQUIRES_PLUGIN_API = PLUGIN_API_1


@hookimpl
def register_settings() -> list[SettingsSection]:
    """pvc.provisioner and pvc.metadata"""
    return [settings.SECTION, settings.METADATA_SECTION]


@hookimpl
def register_records() -> list[type[Record]]:
    """Templates, scripts, profiles, and the metadata of guests."""
    return [
        records.Counter,
        records.SystemTemplate,
        records.NetworkTemplate,
        records.StorageTemplate,
        records.UserdataTemplate,
        records.Script,
        records.Profile,
        records.GuestMetadata,
    ]


@hookimpl
def register_components() -> list[Component[Any]]:
    """Scripts inspected and run, userdata rendered, the metadata API, and encoded replies in the API."""
    return [*components.COMPONENTS, *inspection.COMPONENTS, *userdata.COMPONENTS, *views.COMPONENTS]


@hookimpl
def register_routes() -> list[Routes]:
    """The manual's chapter: the provisioner."""
    return routes.ROUTES


@hookimpl
def register_handlers() -> list[Handlers]:
    """The primary holds the metadata address, and removes the metadata of removed VMs."""
    return [handlers.primary]


@hookimpl
def register_steps() -> list[Step]:
    """The steps in which a VM is built."""
    return steps.STEPS


@hookimpl
def register_template_filters() -> list[TemplateFilter]:
    """For userdata: Base64, JSON, YAML and shell quoting."""
    return userdata.FILTERS


@hookimpl
def register_commands() -> list[click.Command]:
    """pvcd examples"""
    return [cli.examples]
