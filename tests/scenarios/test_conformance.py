"""Our own plugins, the example and what `pvcd plugin new` writes keep the rules that others' plugins have to keep."""

from __future__ import annotations

import pytest

from pvcd.plugin.loading import Plugin, load
from pvcd.settings import PluginsSection
from pvcd.testing import conformance

BUILT_IN = [plugin for plugin in load(PluginsSection()) if plugin.required]


@pytest.mark.parametrize("plugin", BUILT_IN, ids=lambda plugin: plugin.name)
def test_a_built_in_plugin_keeps_the_rules(plugin: Plugin) -> None:
    assert conformance.complaints(plugin.module) == []
