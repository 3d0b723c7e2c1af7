"""The kernel's links in the network namespace of this process, read and changed with `ip` and `bridge`.

Ours carry a mark from their creation on; others are never touched.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from types import TracebackType
from typing import Self

from pvcd import Clock, Failed, SystemClock, TimedOut
from pvcd_plugins.network.bridge import (
    Address,
    Bridge,
    Gateway,
    Kind,
    absent,
    apart,
    bridge_name,
    plan,
    sysctls,
    taken,
    unreachable,
    uplink_name,
    with_router,
    wrong,
)
from pvcd_plugins.network.bridge.announce import Announced, Announcer
from pvcd_plugins.network.bridge.links import Batch, Link, Step, default_device, floods, look, remove
from pvcd_plugins.network.bridge.plan import Underlay, Uplink

SYSCTL_SECONDS = 10.0
_OURS = re.compile(r"(vmbr|vxlan|vlan)\d+")


class LinuxBridges:
    """The kernel's bridges, VXLAN tunnels and VLANs."""

    def __init__(
        self,
        device: str | None,
        vlan_device: str | None,
        port: int = 4789,
        mtu: int | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """`device` carries the tunnels (default: that of the default route, or `lo`), `vlan_device` the VLANs.

        `mtu` overrides the MTU of `device`.
        """
        self._device = device
        self._vlan_device = vlan_device
        self._port = port
        self._mtu = mtu
        self._clock = clock or SystemClock()
        self._announcer = Announcer(self._clock)
        self._changing, self._holding = asyncio.Lock(), asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop announcing. Bridges stay for the VMs that use them; gateway addresses expire."""
        await self._announcer.aclose()

    async def address(self) -> Address:
        """Return where the tunnels of other nodes reach this one."""
        return (await self._underlay(await look())).address

    async def mtu(self) -> int:
        """Return the MTU of managed networks on this node."""
        return (await self._underlay(await look())).mtu

    async def _underlay(self, links: Mapping[str, Link]) -> Underlay:
        if self._device is None:
            # Remembered: tunnels must not move when the default route disappears for a while.
            self._device = await default_device()
        device = _device(links, self._device or "lo")
        address = plan.underlay_address(device)
        if address is None:
            raise Failed(unreachable(device.name))
        return Underlay(device.name, address, self._port, plan.tunnel_mtu(device, address, self._mtu))

    async def apply(self, wanted: Collection[Bridge], peers: Collection[Address]) -> dict[int, str]:
        """Have exactly these bridges: create what is missing, repair what differs, remove the rest."""
        async with self._changing:
            links, flooded = await asyncio.gather(look(), floods())
            batch = Batch("Cannot create bridge {!r}")
            uplinks = await self._uplinks(wanted, links, batch.failures)
            if uplinks:
                await _settle(sysctls.pass_by_filters)
            await batch.take("ip", _steps(plan.making(vni, uplink, links) for vni, uplink in uplinks.items()))
            await _isolate(batch, uplinks, links)
            sentences = await _join(batch, uplinks, peers, links, flooded)
            await batch.take("ip", _steps(plan.raising(vni, uplink, links) for vni, uplink in uplinks.items()))
            names = {name for bridge in wanted for name in (bridge_name(bridge.vni), uplink_name(bridge))}
            unwanted = [link.name for link in links.values() if _ours(link) and link.name not in names]
            incomplete = [name for vni in batch.failures for name in batch.made.get(vni, ())]
            if unwanted or incomplete:
                await remove(unwanted + incomplete)
            return sentences | batch.failures

    async def _uplinks(
        self, wanted: Collection[Bridge], links: Mapping[str, Link], failures: dict[int, str]
    ) -> dict[int, Uplink]:
        """Plan the uplink of each bridge; `failures` gets the sentences for those that cannot have one."""
        uplinks = {}
        try:
            under: Underlay | Failed = await self._underlay(links)
        except Failed as error:
            under = error
        for bridge in wanted:
            try:
                uplinks[bridge.vni] = self._uplink(bridge, links, under)
            except Failed as error:
                failures[bridge.vni] = error.sentence
        return uplinks

    def _uplink(self, bridge: Bridge, links: Mapping[str, Link], under: Underlay | Failed) -> Uplink:
        if sentence := wrong(bridge.vni, bridge.kind):
            raise Failed(sentence)
        for name in (bridge_name(bridge.vni), uplink_name(bridge)):
            if name in links and not _ours(links[name]):
                raise Failed(taken(name))
        if bridge.kind is Kind.BRIDGED:
            return self._vlan(bridge.vni, links)
        if isinstance(under, Failed):
            raise under
        return plan.tunnel(bridge.vni, under)

    def _vlan(self, vni: int, links: Mapping[str, Link]) -> Uplink:
        if self._vlan_device is None:
            raise Failed(f"Cannot create bridge {bridge_name(vni)!r}: pvc.network.vlan_device is not set on this node.")
        return plan.vlan(vni, _device(links, self._vlan_device))

    async def hold(self, gateways: Mapping[int, Collection[Gateway]], seconds: float) -> dict[int, str]:
        """Have exactly these addresses for this time, and announce the new ones."""
        async with self._holding:
            links = await look()
            until = self._clock.monotonic() + seconds
            bridges = {int(link.name[4:]): link for link in links.values() if _ours(link) and link.name[:4] == "vmbr"}
            wanted = {vni: with_router(some) for vni, some in gateways.items() if some}
            held = [_announced(bridges[vni], one) for vni, some in wanted.items() if vni in bridges for one in some]
            self._announcer.hold(held, until)
            batch = Batch("Cannot set the gateway of bridge {!r}")
            batch.failures.update((vni, absent(vni)) for vni in wanted if vni not in bridges)
            await _route(wanted)
            own = {vni: wanted.get(vni, frozenset()) for vni in bridges}
            await batch.take("ip", _steps(plan.holding(vni, bridges[vni], own[vni], seconds) for vni in own))
            new = [
                _announced(link, one)
                for vni, link in bridges.items()
                for one in own[vni] - {each.interface for each in link.addresses}
                if vni not in batch.failures
            ]
            self._announcer.announce(new)
            return batch.failures


def _ours(link: Link) -> bool:
    return link.ours and _OURS.fullmatch(link.name) is not None


def _device(links: Mapping[str, Link], name: str) -> Link:
    if name not in links:
        raise Failed(f"There is no link {name!r} on this node.")
    return links[name]


def _announced(link: Link, gateway: Gateway) -> Announced:
    return Announced(link.name, link.mac, gateway.ip)


def _steps(some: Iterable[Iterable[Step]]) -> list[Step]:
    return list(chain.from_iterable(some))


async def _isolate(batch: Batch, uplinks: Mapping[int, Uplink], links: Mapping[str, Link]) -> None:
    """Keep the node itself out of networks that are not up yet."""
    down = [vni for vni, uplink in uplinks.items() if any(plan.raising(vni, uplink, links))]

    def isolate() -> None:
        for vni in down:
            try:
                sysctls.isolate(bridge_name(vni), uplinks[vni].name)
            except Failed as error:
                batch.fail(vni, error.sentence.rstrip("."))

    if down:
        await _settle(isolate)


async def _join(
    batch: Batch,
    uplinks: Mapping[int, Uplink],
    peers: Collection[Address],
    links: Mapping[str, Link],
    flooded: Mapping[str, Collection[Address]],
) -> dict[int, str]:
    """Point tunnels at the peers. Returns a sentence by VNI if a peer cannot be reached."""
    steps, sentences = [], {}
    for vni, uplink in uplinks.items():
        if (local := uplink.local) is None:
            continue
        alike = [peer for peer in peers if peer.version == local.version and peer != local]
        for peer in peers:
            if peer.version != local.version:
                sentences[vni] = apart(peer, local)
        link = links.get(uplink.name)
        seen = flooded.get(uplink.name, ()) if link and uplink.fits(link) else ()
        steps.append(plan.flooding(vni, uplink.name, alike, seen))
    await batch.take("bridge", _steps(steps))
    return sentences


async def _route(wanted: Mapping[int, Collection[Gateway]]) -> None:
    """Make the node a router for networks with gateways."""

    def route() -> None:
        for vni, gateways in wanted.items():
            sysctls.route(bridge_name(vni), {gateway.version for gateway in gateways})

    if wanted:
        await _settle(route)


async def _settle(work: Callable[[], None]) -> None:
    """Write kernel parameters in a thread."""
    try:
        async with asyncio.timeout(SYSCTL_SECONDS):
            await asyncio.to_thread(work)
    except TimeoutError:
        raise TimedOut(f"Cannot set kernel parameters: no answer within {SYSCTL_SECONDS:g} s.") from None
