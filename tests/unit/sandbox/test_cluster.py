"""The settings that the sandbox writes for its daemons."""

import pytest

from pvcd.errors import Refused
from pvcd.plugin.registry import start
from pvcd_plugins.sandbox.cluster import Sandbox, settings, write_settings


def sandbox_at(directory):
    sandbox = Sandbox(directory)
    sandbox.ports = {"zookeeper": 2181, "redis": 6379, "api": 7370}
    return sandbox


def test_settings_are_valid_and_name_ports_and_directory(tmp_path):
    pvc = settings(sandbox_at(tmp_path))["pvc"]
    assert pvc["coordinators"] == ["127.0.0.1:2181"]
    assert pvc["api"]["listen_port"] == 7370
    assert pvc["redis"]["url"].endswith("@127.0.0.1:6379/0")
    assert pvc["vm"]["console_directory"] == str(tmp_path / "console")
    assert str(tmp_path / "libvirt") in pvc["vm"]["uri"]
    start(pvc)


def test_kvm_is_offered_only_if_it_boots_a_kernel(tmp_path):
    sandbox = sandbox_at(tmp_path)
    assert settings(sandbox)["pvc"]["vm"]["domain_types"] == ["qemu"]
    sandbox.domain_type = "kvm"
    assert settings(sandbox)["pvc"]["vm"]["domain_types"] == ["kvm", "qemu"]


def test_vms_reach_nothing_of_the_host_unless_directories_are_given(tmp_path):
    assert settings(sandbox_at(tmp_path))["pvc"]["vm"]["host_access"] == []
    sandbox = Sandbox(tmp_path, vm_files=[tmp_path / "images"])
    sandbox.ports = {"zookeeper": 2181, "redis": 6379, "api": 7370}
    pvc = settings(sandbox)["pvc"]
    assert pvc["vm"]["host_access"] == [{"files": [str(tmp_path / "images")]}]
    start(pvc)


def test_settings_file_is_readable_by_its_owner_only(tmp_path):
    file = tmp_path / "pvc-api.yaml"
    write_settings(file, settings(sandbox_at(tmp_path)))
    assert file.stat().st_mode & 0o077 == 0


def test_servers_have_different_random_passwords_that_last(tmp_path):
    one, two = (sandbox_at(tmp_path / name) for name in ("one", "two"))
    for sandbox in (one, two):
        sandbox.directory.mkdir()
    found = {sandbox.password(server) for sandbox in (one, two) for server in ("redis", "zookeeper")}
    assert len(found) == 4 and min(map(len, found)) >= 32
    assert settings(one) == settings(sandbox_at(tmp_path / "one"))
    assert settings(one)["pvc"]["zookeeper"]["password"] == one.password("zookeeper")


def test_unknown_server_is_refused_with_a_suggestion(tmp_path):
    with pytest.raises(Refused, match="did you mean 'zookeeper'"):
        Sandbox(tmp_path, only=("zookeper",))
