"""Leases as records: written by the primary's DHCP servers, and read by those of the next primary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from pvcd import Check, Context, Delete, Upsert, retried
from pvcd_plugins.network.dhcp import Address, Leased
from pvcd_plugins.network.operations import LEASE
from pvcd_plugins.network.records import Lease, Network

BATCH = 500
"""Leases removed in one transaction."""
_FIELDS = {field.name for field in fields(Leased)}


class StoredLeases:
    """Reads and writes the records of leases; its writes carry the primary's fence."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def known(self, vni: int) -> Sequence[Leased]:
        """Return the unexpired leases of a network."""
        now = self._context.clock.time()
        records = [lease for lease in self._context.store.all(Lease) if lease.vni == vni and lease.expires > now]
        return [Leased(**{name: getattr(record, name) for name in _FIELDS}) for record in records]

    async def taken(self, vni: int, lease: Leased) -> None:
        """Store a lease that was taken or renewed."""
        await _remember(self._context, vni, lease)

    async def ended(self, vni: int, address: Address) -> None:
        """Remove a lease that was given back or has expired."""
        await _forget(self._context, vni, address)


@retried
async def _remember(context: Context, vni: int, lease: Leased) -> None:
    """Write a lease, unless its network is gone or being removed."""
    network = context.store.get(Network, vni)
    if network is None or network.removing:
        return
    old, values = context.store.get(Lease, vni, lease.address), asdict(lease)
    new = old.changed(**values) if old else Lease(vni=vni, **values)
    await context.store.write(Upsert(new), Check(network))
    if old is None or (old.mac, old.hostname) != (lease.mac, lease.hostname):
        await _notify(context, "taken", vni, lease)


@retried
async def _forget(context: Context, vni: int, address: Address) -> None:
    old = context.store.get(Lease, vni, address)
    if old is not None:
        await context.store.write(Delete(old))
        await _notify(context, "ended", vni, old)


async def _notify(context: Context, action: str, vni: int, lease: Leased | Lease) -> None:
    arguments = {"action": action, "vni": vni, "address": lease.address, "mac": lease.mac, "hostname": lease.hostname}
    await context.operations.notify(context, LEASE, arguments)


async def remove_stale(context: Context) -> None:
    """Remove expired leases and those of networks that no longer exist, which no DHCP server will end."""
    now = context.clock.time()
    networks = {network.vni for network in context.store.all(Network)}
    stale = [each for each in context.store.all(Lease) if each.vni not in networks or each.expires < now]
    for start in range(0, len(stale), BATCH):
        await context.store.write(*map(Delete, stale[start : start + BATCH]))


async def remove_all(context: Context, vni: int) -> None:
    """Remove all leases of a network, a batch at a time."""
    while await _remove_batch(context, vni):
        pass


@retried
async def _remove_batch(context: Context, vni: int) -> bool:
    leases = [lease for lease in context.store.all(Lease) if lease.vni == vni][:BATCH]
    if leases:
        await context.store.write(*map(Delete, leases))
    return len(leases) == BATCH
