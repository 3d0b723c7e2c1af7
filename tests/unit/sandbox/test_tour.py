"""What the tour prints: commands that a shell takes as they are, each with its reply, and the steps of a task."""

import contextlib
import json
import shlex
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from pvcd_plugins.sandbox import tour


class Session:
    """A session whose replies are the forms that it was sent."""

    @contextlib.asynccontextmanager
    async def request(self, method, url, *, data):
        yield SimpleNamespace(ok=True, json=AsyncMock(return_value=data))


@pytest.fixture
def curl():
    """The tour's client, and what it has printed."""
    said = []
    client = tour._Curl(Session(), "http://127.0.0.1:7370/api/v1", said.append)
    client.said = said
    return client


async def test_a_request_is_printed_as_a_command_of_the_shell_with_its_reply(curl):
    await curl.show("POST", "/create?check", name="a b", arg=["one=1", "two=*"])
    command, reply = curl.said
    address = f"{curl.api}/create?check"
    words = ["--data-urlencode", "name=a b", "--data-urlencode", "arg=one=1", "--data-urlencode", "arg=two=*"]
    assert shlex.split(command) == ["$", "curl", "-X", "POST", address, *words]
    assert f"'{address}'" in command  # zsh would look for files with such names
    assert json.loads(reply) == [["name", "a b"], ["arg", "one=1"], ["arg", "two=*"]]


async def test_a_file_is_sent_with_its_content_and_printed_by_its_name(curl, tmp_path):
    script = tmp_path / "my script.py"
    script.write_text("def install(**kwargs):\n    pass\n")
    await curl.show("POST", "/script", name="tiny", data=script)
    command, reply = curl.said
    assert shlex.split(command)[-4:] == ["--data-urlencode", "name=tiny", "--data-urlencode", f"data@{script}"]
    assert json.loads(reply) == [["name", "tiny"], ["data", script.read_text()]]


def test_a_step_without_a_message_has_no_colon():
    step = {"state": "changed", "title": "Unmap the volumes", "message": ""}
    assert tour.step_line(step) == "  changed  Unmap the volumes"
    assert tour.step_line({**step, "message": "Done."}) == "  changed  Unmap the volumes: Done."
