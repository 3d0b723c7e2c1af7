"""The ports of the sandbox."""

import pytest

from pvcd.errors import Conflict, Failed
from pvcd_plugins.sandbox.ports import USUAL, choose


def test_usual_ports_are_used_if_free():
    assert choose({}, free=lambda port: True) == USUAL


def test_next_free_port_replaces_a_usual_port_in_use():
    ports = choose({}, free=lambda port: port not in (2181, 2182))
    assert ports == {**USUAL, "zookeeper": 2183}


def test_requested_port_is_used():
    assert choose({"api": 8000, "redis": None}, free=lambda port: True) == {**USUAL, "api": 8000}


def test_requested_port_in_use_is_refused():
    with pytest.raises(Conflict, match=r"Cannot use port 8000 for api: in use.*--api-port"):
        choose({"api": 8000}, free=lambda port: port != 8000)


def test_port_requested_twice_is_refused():
    with pytest.raises(Conflict, match="Cannot use port 8000 for redis: requested for another server too"):
        choose({"api": 8000, "redis": 8000}, free=lambda port: True)


def test_usual_port_requested_for_another_server_is_not_used_twice():
    assert choose({"redis": 2181}, free=lambda port: True)["zookeeper"] == 2182


def test_error_if_no_port_is_free():
    with pytest.raises(Failed, match="Cannot find a port for zookeeper: 2181 to 2380 are in use"):
        choose({}, free=lambda port: False)
