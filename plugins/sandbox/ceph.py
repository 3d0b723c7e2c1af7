"""A small Ceph on loopback: a monitor, a manager and OSDs on sparse files, all in one directory, with cephx.

Its clients are `client.admin`, which may do everything, and `client.libvirt`, which may use volumes. The first start
creates the pool `vms`. OSDs that were added later, on devices, are started by the node agent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import shutil
import struct
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

from pvcd import Failed, programs
from pvcd_plugins.sandbox import passwords, sockets
from pvcd_plugins.sandbox.packages import PATH
from pvcd_plugins.sandbox.service import Service

MON, MGR, OSD = "ceph-mon", "ceph-mgr", "ceph-osd"
NAMES = (MON, MGR, OSD)
POOL = "vms"
OSD_BYTES = 8 * 1024**3
PLACEMENT_GROUPS = 8
COMMAND_SECONDS = 30.0
LOST_SECONDS = 30.0
"""Restart an OSD that runs and says for so long that it is not part of the cluster, or holds back requests."""
HEALTHY_SECONDS = 15.0
"""How long the start waits for HEALTH_OK before it reports Ceph's health and continues."""

_LONGEST_SOCKET = "ceph-client.libvirt.12345.1234567890123456.asok"
_CAPS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"},
    "client.libvirt": {"mon": "profile rbd", "osd": "profile rbd", "mgr": "profile rbd"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
}
_OSD_CAPS = {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"}
_DISABLED_MODULES = (
    "alerts influx insights iostat localpool mirroring nfs osd_support prometheus restful selftest snap_schedule "
    "stats telegraf test_orchestrator zabbix"
)

# One copy of everything; no space or time reserved for the needs of large clusters. By default an OSD that was marked
# down six times in ten minutes ends for good: some pauses are enough, such as the sleep of a laptop. After a pause that
# is longer than its read lease but too short for the monitor, 6 to 20 s, it would hold back requests for good.
_CONF = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{port}/0
mon_initial_members = a
ms_bind_msgr1 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
run_dir = {run}
admin_socket = {run}/$cluster-$name.asok
log_file = {at}/log/$name.log
log_to_stderr = false
err_to_stderr = true
mon_cluster_log_file = {at}/log/cluster.log
mon_cluster_log_file_level = info
crash_dir = {at}/log
setuser_match_path =
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = {pgs}
osd_pool_default_pgp_num = {pgs}
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_warn_on_too_few_osds = false
mon_max_pg_per_osd = 1000
mon_pg_warn_min_per_osd = 0
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_osd_down_out_interval = 30
mon_osd_min_down_reporters = 1
mon_osd_report_timeout = 20
mon_compact_on_start = false
mon_memory_autotune = false
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mgr_tick_period = 1
mgr_stats_period = 1
mgr_service_beacon_grace = 20
mgr_initial_modules =
mgr_disabled_modules = {disabled}
bdev_aio_poll_ms = 10
bdev_enable_discard = false
bluestore_block_size = {osd_bytes}
bluestore_block_create = true
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
bluestore_fsck_on_mount = false
rocksdb_cache_size = 16777216
osd_memory_target = 939524096
osd_heartbeat_interval = 2
osd_heartbeat_grace = 8
osd_pool_default_read_lease_ratio = 5
osd_mon_heartbeat_interval = 5
osd_beacon_report_interval = 5
osd_max_markdown_count = 1000000
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
osd_max_backfills = 4
osd_recovery_max_active = 16
osd_recovery_sleep_hdd = 0
osd_recovery_sleep_hybrid = 0
osd_recovery_retry_interval = 2
osd_backfill_retry_interval = 2
osd_delete_sleep_hdd = 0
osd_snap_trim_sleep_hdd = 0
osd_max_pg_log_entries = 500
osd_min_pg_log_entries = 100
ms_async_op_threads = 2
debug_mon = 1
debug_osd = 0
debug_bluestore = 0
debug_rocksdb = 1
debug_ms = 0
[mon]
mon_data = {at}/mon
[mgr]
mgr_data = {at}/mgr
keyring = {at}/keyring
[osd]
osd_data = {at}/osd/$id
[client]
keyring = {at}/$name.keyring
log_file =
admin_socket =
"""
_OSD_CONF = """\
[osd.{osd}]
keyring = {at}/keyring
crush_location = root=default host={node}
osd_crush_initial_weight = 1
"""


def conf(directory: Path) -> Path:
    """Return the configuration file with which clients find the cluster in `directory`."""
    return directory / "ceph.conf"


class Ceph:
    """The servers of the cluster in one directory. The monitor listens on 127.0.0.1:`port`."""

    def __init__(self, directory: Path, port: int, *, node: str, osds: int = 1) -> None:
        self._at = Path(os.path.abspath(directory))
        self._port = port
        self._node = node
        self._osds = osds
        """Must be the number of the first start."""
        self._conf = conf(self._at)

    def stages(self) -> tuple[tuple[Service, ...], ...]:
        """Return the servers; those of a stage start when those of the stages before are ready."""
        mon = Service(MON, self._argv("mon", "a"), self._mon_ready, prepare=self._prepare_mon)
        mgr = Service(MGR, self._argv("mgr", "x"), self._mgr_ready, prepare=self._prepare_mgr)
        return (mon,), (mgr, *map(self._osd, range(self._osds)))

    async def finish(self) -> str:
        """Create the first pool unless that was done before, wait for good health, and return the health."""
        marked = self._at / "pool-made"
        if not marked.exists():
            await self._ask("osd", "pool", "create", POOL, str(PLACEMENT_GROUPS))
            await self._ask("osd", "pool", "application", "enable", POOL, "rbd")
            marked.touch()
        pools = json.loads(await self._ask("osd", "pool", "ls", "--format", "json"))
        begun = time.monotonic()
        while True:
            status = json.loads(await self._ask("status", "--format", "json"))
            # OSDs that were added are not running yet, so Ceph will not become healthy.
            limit = HEALTHY_SECONDS if status["osdmap"]["num_osds"] <= self._osds else HEALTHY_SECONDS / 5
            if _is_healthy(status, len(pools)) or time.monotonic() - begun > limit:
                return " ".join((await self._ask("health")).split())
            await asyncio.sleep(0.1)

    def _argv(self, kind: str, name: str) -> tuple[str, ...]:
        return (f"ceph-{kind}", "--conf", str(self._conf), "-i", name, "-f")

    def _osd(self, osd: int) -> Service:
        async def ready() -> bool:
            # Ask the OSD itself: after a kill, the cluster's map still says that all OSDs are up.
            at = self._socket(f"osd.{osd}")
            if (await _state(at, "status")).get("state") != "active":
                return False
            return not lets_requests_wait(await _ask(at, "dump_ops_in_flight"))

        name = OSD if osd == 0 else f"{OSD}-{osd}"
        argv, prepare = self._argv("osd", str(osd)), lambda: self._prepare_osd(osd)
        return Service(name, argv, ready, prepare=prepare, lost_seconds=LOST_SECONDS)

    async def _mon_ready(self) -> bool:
        return (await _state(self._socket("mon.a"), "mon_status")).get("state") == "leader"

    async def _mgr_ready(self) -> bool:
        return bool((await _state(self._socket("mgr.x"), "mgr_status")).get("initialized"))

    def _prepare_mon(self) -> None:
        """Write the monitor's initial data if there is none, and the settings at each start."""
        for name in ("log", "osd", "mgr"):
            (self._at / name).mkdir(parents=True, exist_ok=True)
        sockets.prepare(self._at, _LONGEST_SOCKET)
        fsid = passwords.once(self._at / "fsid", lambda: str(uuid4()))
        keys = json.loads(passwords.once(self._at / "keys.json", lambda: json.dumps(_make_keys(self._osds))))
        self._conf.write_text(self._text(fsid, [name for name in keys if name.startswith("osd.")]))
        _write_keyring(self._at / "keyring", keys)
        for client in ("client.admin", "client.libvirt"):
            _write_keyring(self._at / f"{client}.keyring", {client: keys[client]})
        if not (self._at / "mon").exists():
            self._make_mon(fsid)
        elif (self._at / "port").read_text() != str(self._port):
            self._move_mon()
        (self._at / "port").write_text(str(self._port))

    def _text(self, fsid: str, osds: list[str]) -> str:
        values = {"fsid": fsid, "port": self._port, "at": self._at, "run": sockets.directory(self._at, _LONGEST_SOCKET)}
        text = _CONF.format(**values, pgs=PLACEMENT_GROUPS, disabled=_DISABLED_MODULES, osd_bytes=OSD_BYTES)
        return text + "".join(_OSD_CONF.format(osd=name[4:], at=self._at, node=self._node) for name in osds)

    def _make_mon(self, fsid: str) -> None:
        new, map = self._at / "mon.new", self._at / "monmap"
        shutil.rmtree(new, ignore_errors=True)
        self._call("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", self._address, str(map))
        options = ("--monmap", str(map), "--keyring", str(self._at / "keyring"), "--mon-data", str(new))
        self._call("ceph-mon", "--conf", str(self._conf), "-i", "a", "--mkfs", *options)
        new.rename(self._at / "mon")

    def _move_mon(self) -> None:
        """Give the monitor another port than before."""
        map = str(self._at / "monmap")
        mon = ("ceph-mon", "--conf", str(self._conf), "-i", "a")
        self._call(*mon, "--extract-monmap", map)
        self._call("monmaptool", "--rm", "a", map)
        self._call("monmaptool", "--addv", "a", self._address, map)
        self._call(*mon, "--inject-monmap", map)

    @property
    def _address(self) -> str:
        return f"[v2:127.0.0.1:{self._port}/0]"

    def _prepare_mgr(self) -> None:
        # Otherwise the manager creates a pool for the health of disks, which are only files here.
        if not (self._at / "mgr/set").exists():
            self._call(
                "ceph", *self._admin, "config", "set", "mgr", "mgr/devicehealth/enable_monitoring", "false", "--force"
            )
            (self._at / "mgr/set").touch()

    def _prepare_osd(self, osd: int) -> None:
        """Create the OSD unless it is complete; an interrupted creation is started over."""
        data = self._at / f"osd/{osd}"
        if (data / "ready").exists():
            return
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        uuid = str(uuid5(UUID((self._at / "fsid").read_text()), f"osd.{osd}"))
        self._call("ceph", *self._admin, "osd", "new", uuid, str(osd))
        self._call("ceph-osd", "--conf", str(self._conf), "-i", str(osd), "--mkfs", "--osd-uuid", uuid)

    @property
    def _admin(self) -> tuple[str, ...]:
        return ("--conf", str(self._conf), "--connect-timeout", str(int(COMMAND_SECONDS)))

    async def _ask(self, *words: str) -> str:
        result = await programs.run(("ceph", *self._admin, *words), timeout=COMMAND_SECONDS)
        return result.stdout.decode()

    def _call(self, *argv: str) -> None:
        """Run a program; it blocks, so never call it in the event loop."""
        environment = {**os.environ, "PATH": PATH}
        try:
            subprocess.run(argv, check=True, capture_output=True, timeout=COMMAND_SECONDS, env=environment)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode(errors="replace").strip()[-500:]
            raise Failed(f"Cannot prepare Ceph: {argv[0]} failed: {reason}") from error
        except subprocess.TimeoutExpired as error:
            raise Failed(f"Cannot prepare Ceph: {argv[0]} did not finish within {COMMAND_SECONDS:g} s.") from error

    def _socket(self, name: str) -> Path:
        return sockets.directory(self._at, _LONGEST_SOCKET) / f"ceph-{name}.asok"


def settings(directory: Path) -> dict[str, str]:
    """Return the section pvc.ceph of the daemons' settings for the cluster in `directory`."""
    return {"conf": str(conf(directory)), "user": "admin", "libvirt_user": "libvirt"}


def _is_healthy(status: Mapping[str, Any], pools: int) -> bool:
    """Return whether the health is good, all placement groups are clean, and the manager has counted all pools."""
    pgs = status["pgmap"]
    clean = all(each["state_name"] == "active+clean" for each in pgs["pgs_by_state"])
    counted = pgs["bytes_total"] and pgs["num_pools"] >= pools
    return bool(status["health"]["status"] == "HEALTH_OK" and counted and clean)


async def _state(socket: Path, question: str) -> Mapping[str, Any]:
    """Return a daemon's answer at its admin socket; empty before the daemon knows the question."""
    return await _ask(socket, question) if question in await _ask(socket, "help") else {}


def lets_requests_wait(in_flight: Mapping[str, Any]) -> bool:
    """Return whether an OSD holds back requests until the read lease of a placement group is renewed.

    If a request comes right after a pause, before the renewal, the group stays `laggy`: the flag goes when another OSD
    confirms the renewal, and a group with one copy has no other.
    """
    last = (event for each in in_flight.get("ops", ()) for event in each["type_data"]["events"][-1:])
    return any(event["event"] == "waiting for readable" for event in last)


async def _ask(socket: Path, question: str) -> Mapping[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(json.dumps({"prefix": question, "format": "json"}).encode() + b"\0")
        size = int.from_bytes(await reader.readexactly(4), "big")
        answer = json.loads(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ValueError):
        return {}
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return answer if isinstance(answer, dict) else {}


def _make_keys(osds: int) -> dict[str, str]:
    """Make a key for each client and server."""
    return {name: _key() for name in (*_CAPS, *(f"osd.{osd}" for osd in range(osds)))}


def _key() -> str:
    """Make a secret in Ceph's format: type, creation time, length and 16 random bytes, in base64."""
    return base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, 16) + secrets.token_bytes(16)).decode()


def _write_keyring(file: Path, keys: Mapping[str, str]) -> None:
    lines = []
    for name, key in keys.items():
        lines += [f"[{name}]", f"key = {key}"]
        lines += [f'caps {kind} = "{caps}"' for kind, caps in _CAPS.get(name, _OSD_CAPS).items()]
    passwords.write(file, "\n".join(lines) + "\n")
