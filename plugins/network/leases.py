"""Where the primary's DHCP servers remember their leases: in records, so that the next primary's know them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from pvcd import Changed, Check, Context, Create, Delete, Exists, OperationKind, Put, retried
from pvcd_plugins.network.dhcp import Address, Leased
from pvcd_plugins.network.records import Lease, Network

BATCH = 200
"""Records in one transaction."""
OPERATIONS = [
    OperationKind(
        name="network-lease",
        doc="A host has taken a lease, changed it or given it back; a mere renewal is not told.",
        place="primary",
        phases=("post",),
        arguments={
            "action": {"enum": ["taken", "ended"], "description": "What happened"},
            "vni": {"type": "integer", "description": "The network"},
            "address": {"type": "string", "description": "The IP address"},
            "mac": {"type": ["string", "null"], "description": "The host's MAC address"},
            "hostname": {"type": ["string", "null"], "description": "What the host calls itself"},
        },
    )
]
"""What the primary does by itself."""
_FIELDS = {field.name for field in fields(Leased)}


class StoredLeases:
    """Reads and writes the records of leases; its writes carry the primary's fence."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def known(self, vni: int) -> Sequence[Leased]:
        """All that hold in a network."""
        now = self._context.clock.time()
        records = [lease for lease in self._context.store.all(Lease) if lease.vni == vni and lease.expires > now]
        return [Leased(**{name: getattr(record, name) for name in _FIELDS}) for record in records]

    async def taken(self, vni: int, lease: Leased) -> None:
        """One was taken or renewed."""
        await _remember(self._context, vni, lease)

    async def ended(self, vni: int, address: Address) -> None:
        """One was given back or has expired."""
        await _forget(self._context, vni, address)


@retried
async def _remember(context: Context, vni: int, lease: Leased) -> None:
    """Write a lease, unless its network is gone, or going."""
    network = context.store.get(Network, vni)
    if network is None or network.removing:
        return
    old, values = context.store.get(Lease, vni, lease.address), asdict(lease)
    try:
        change = Put(old.changed(**values)) if old else Create(Lease(vni=vni, **values))
        await context.store.write(change, Check(network))
    except Exists as error:
        raise Changed(error.path) from None
    if old is None or (old.mac, old.hostname) != (lease.mac, lease.hostname):
        await _tell(context, "taken", vni, lease)


@retried
async def _forget(context: Context, vni: int, address: Address) -> None:
    old = context.store.get(Lease, vni, address)
    if old is not None:
        await context.store.write(Delete(old))
        await _tell(context, "ended", vni, old)


async def _tell(context: Context, action: str, vni: int, lease: Leased | Lease) -> None:
    told = {"action": action, "vni": vni, "address": lease.address, "mac": lease.mac, "hostname": lease.hostname}
    await context.operations.notify(context, "network-lease", told)


async def clear(context: Context) -> None:
    """Remove what no network and no server will remove: leases of networks that are gone, and expired ones."""
    now = context.clock.time()
    networks = {network.vni for network in context.store.all(Network)}
    past = [each for each in context.store.all(Lease) if each.vni not in networks or each.expires < now]
    for start in range(0, len(past), BATCH):
        await context.store.write(*map(Delete, past[start : start + BATCH]))
