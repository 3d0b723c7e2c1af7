"""The ports of the sandbox."""

import pytest

from pvcd.errors import Conflict, Failed
from pvcd_plugins.sandbox.ports import USUAL, choose


def test_the_usual_ports_are_taken_when_they_are_free():
    assert choose({}, free=lambda port: True) == USUAL


def test_a_usual_port_in_use_gives_way_to_the_next_free_one():
    ports = choose({}, free=lambda port: port not in (2181, 2182))
    assert ports == {**USUAL, "zookeeper": 2183}


def test_a_port_that_was_asked_for_is_taken():
    assert choose({"api": 8000, "redis": None}, free=lambda port: True) == {**USUAL, "api": 8000}


def test_a_port_that_was_asked_for_and_is_in_use_is_refused():
    with pytest.raises(Conflict, match=r"Port 8000, asked for api, is in use.*--api-port"):
        choose({"api": 8000}, free=lambda port: port != 8000)


def test_one_port_asked_for_twice_is_refused():
    with pytest.raises(Conflict, match="8000 was asked for twice"):
        choose({"api": 8000, "redis": 8000}, free=lambda port: True)


def test_a_usual_port_that_was_asked_for_another_server_is_not_given_twice():
    assert choose({"redis": 2181}, free=lambda port: True)["zookeeper"] == 2182


def test_no_free_port_at_all_is_a_sentence():
    with pytest.raises(Failed, match="None of the ports 2181 to 2380 is free"):
        choose({}, free=lambda port: False)
