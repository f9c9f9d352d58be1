"""Gossip over TLS: a port, a round every second and a lease of one's own, in a thread beside the node's work.

An exchange is one connection (``exchange``). Both ends are proven by certificate before a byte is read, and a
called node must be the one that was meant. The thread keeps the node's own event loop free of signature
checks.

*Covered*: a coordinator that is away, for good or for a while; a member that hangs, dribbles, sends too much
or calls without end; a view filled by a bloc (one round in eight calls a member by its lease); a certificate
that is renewed; a port that is taken. *Not covered*: nodes that can't be called from outside (they call, and
so learn all; there is no relay here); a clock so far behind that its own leases are over when they are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sharedllm.errors import SharedLLMError
from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.gossip.entries import Author, Entry, Kind
from sharedllm.nodes.gossip.errors import BadEntry
from sharedllm.nodes.gossip.exchange import Callers, Exchange, call
from sharedllm.nodes.gossip.leases import LEASE_S, Lease, anybody
from sharedllm.nodes.gossip.membership import Certified
from sharedllm.nodes.gossip.memory import recall, remember
from sharedllm.nodes.gossip.messages import Sync, decode, encode
from sharedllm.nodes.gossip.peer import LIFE_CEILING_S, Peer
from sharedllm.nodes.gossip.view import Contact
from sharedllm.nodes.identity import Identity
from sharedllm.nodes.identity import Peer as Caller
from sharedllm.nodes.operations import PortTaken
from sharedllm.nodes.proxy.channel import TlsChannel
from sharedllm.nodes.proxy.listener import Limits, Listener

__all__ = ["ROUND_S", "Service"]

ROUND_S = 1.0
_MANIFEST_S = 12 * 3600.0
# of this node's rounds; whoever fills its view can't keep it from the members whose leases it holds
_LEASED_SHARE = 1 / 8

_log = logging.getLogger(__name__)


class Service:
    """This node's gossip: ``start``, then ``nodes`` and ``manifests`` say what all know.

    ``lease`` makes what the node says of itself, from the address at which it listens; ``published`` are the
    signed manifests that it vouches for, by id (64 hex digits); ``seeds`` are asked when nobody else is
    known, and so are those in the file ``memory``, where this node keeps who is here; ``refuses`` says of a
    node id that nothing is said to it or taken from it (revoked); ``on_news`` is told of every entry that is
    new here, and ``each_round`` is called once a round, both in the thread of gossip; they must be quick.
    """

    def __init__(
        self,
        identity: Identity,
        lease: Callable[[str, int], Lease],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        advertised: str | None = None,
        seeds: Iterable[Contact] = (),
        published: Callable[[], Mapping[str, bytes]] = dict,
        refuses: Callable[[str], bool] = lambda node: False,
        on_news: Callable[[Entry], object] = lambda entry: None,
        each_round: Callable[[Service], object] = lambda service: None,
        memory: Path | None = None,
        round_s: float = ROUND_S,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity, self._make_lease, self._published = identity, lease, published
        self._host, self._port, self._advertised = host, port, advertised or host
        known = recall(memory) if memory is not None else []
        self._refuses, self._clock = refuses, clock
        self._on_news, self._each_round, self._memory = on_news, each_round, memory
        self._round_s, self._lease_s = round_s, lease_s
        self._lock = threading.RLock()
        self._author = Author(identity.key, b"")
        self.peer = Peer(
            Contact(identity.id, self._advertised, port),
            Certified(identity.ca, refuses),
            random.Random(),
            seeds=(*known, *seeds),
            on_news=self._news,
        )
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._callers = Callers(round_s)
        self._renew_s, self._since_s = 0.0, clock()
        self._kept = 1  # itself; a file from before stays until somebody else is here
        self.rounds = 0

    def start(self) -> Contact:
        """Listen and begin; where others find this node. Raises ``PortTaken``."""
        ready = threading.Event()
        self._failure, self._renew_s = None, 0.0
        self._thread = threading.Thread(target=self._run, args=(ready,), name="gossip", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise self._failure
        return self.peer.me

    def stop(self) -> None:
        """Withdraw the lease, tell one more partner so, and end; once or more, also if it never began."""
        if self._thread is None:
            return
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def meet(self, contact: Contact) -> None:
        """Ask ``contact``, too, when nobody else is left."""
        with self._lock:
            self.peer.view.seed(contact)

    def expel(self, node: str) -> None:
        """Forget a node that was revoked, and all that it said; ``refuses`` keeps it out."""
        with self._lock:
            self.peer.view.drop(node)
            self.peer.contents.expel(node)

    def nodes(self) -> dict[str, Lease]:
        """Who is here, by id, as far as this node has heard; itself too."""
        found = {}
        with self._lock:
            entries = list(self.peer.live(Kind.LEASE, self._clock()))
        for entry in entries:
            with contextlib.suppress(BadEntry):
                found[entry.issuer_id] = Lease.of(entry)
        return found

    def manifests(self) -> dict[str, set[bytes]]:
        """What members vouch for as signed manifests, by id; still to be verified, for any may be false."""
        found: dict[str, set[bytes]] = {}
        for entry in self.heard(Kind.MANIFEST):
            found.setdefault(entry.key.hex(), set()).add(entry.payload)
        return found

    def say(self, kind: Kind, key: bytes, payload: bytes, life_s: float) -> Entry:
        """Tell all members something in this node's name, until its certificate ends at the latest.

        Raises ``BadEntry`` for what is too long, or is to hold for more than ``LIFE_CEILING_S``.
        """
        if life_s > LIFE_CEILING_S:
            raise BadEntry(f"An entry may hold for {LIFE_CEILING_S:,.0f} s; {life_s:,.0f} were asked for.")
        with self._lock:
            now, until_s = self._clock(), self._author.certify(self._identity.certificate)
            entry = self._author.issue(kind, key, payload, min(life_s, until_s - now), now)
            self.peer.add(entry, now)
        return entry

    def stand_by(self, kind: Kind, said: Mapping[bytes, bytes], life_s: float) -> None:
        """Say ``said`` (payloads by key) and nothing else of a kind: renew it in time, withdraw the rest.

        The rest may be from before a restart. A member that was expelled says nothing.
        """
        with self._lock:
            now, until_s = self._clock(), self._author.certify(self._identity.certificate)
            mine = self._identity.key.public_bytes
            own = {entry.key: entry for entry in self.peer.live(kind, now) if entry.issuer == mine}
            left_s = min(life_s, until_s - now)
            if left_s <= 0 or self._refuses(self._identity.id):
                return
            for key in own.keys() - said.keys():
                self.withdraw(kind, key)
            for key, payload in said.items():
                known = own.get(key)
                if known is None or known.payload != payload or known.expires_s < now + left_s - life_s / 3:
                    self._tell(kind, key, payload, life_s)

    def withdraw(self, kind: Kind, key: bytes) -> Entry:
        """Tell all members that what this node said about ``key`` holds no more. Raises ``BadEntry``."""
        with self._lock:
            self._author.certify(self._identity.certificate)
            entry = self._author.withdraw(kind, key, self._clock())
            self.peer.add(entry, self._clock())
        return entry

    def heard(self, kind: Kind) -> list[Entry]:
        """All entries of a kind that hold now."""
        with self._lock:
            return list(self.peer.live(kind, self._clock()))

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve(ready))
        except Exception as error:
            self._failure = error
            if ready.is_set():
                _log.exception("gossip ended unforeseen")
        finally:
            ready.set()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        listener = Listener(self._identity, Limits(handshakes=64, connections_per_peer=4), self._greet)
        try:
            port = await listener.listen(self._host, self._port)
        except OSError as error:
            raise PortTaken(
                f"Gossip can't listen on port {self._port} of {self._host} ({error.strerror}); give another "
                "with --gossip-port."
            ) from None
        self.peer.me = dataclasses.replace(self.peer.me, port=port)
        try:
            self._speak()
            ready.set()
            while not self._ending.is_set():
                await self._round()
                with contextlib.suppress(TimeoutError):
                    # spread out, or nodes that start together call together for ever
                    async with asyncio.timeout(self._round_s * random.uniform(0.8, 1.2)):
                        await self._ending.wait()
            with contextlib.suppress(BadEntry):  # of one that was expelled nobody has a lease
                self.withdraw(Kind.LEASE, b"")
            await self._call()
        finally:
            await listener.close()

    async def _round(self) -> None:
        try:
            self._speak()
            await self._call()
            self._each_round(self)
            self._keep()
        except Exception:
            _log.exception("a round of gossip failed unforeseen; the next one begins in time")
        self.rounds += 1

    async def _call(self) -> None:
        """Call this round's partners, and hear them out."""
        leased = random.random() < _LEASED_SHARE
        first = anybody(self.heard(Kind.LEASE), self._identity.id) if leased else None
        with self._lock:
            begun = self.peer.tick(self._clock(), first)
        await asyncio.gather(*[self._exchange(*each) for each in begun if not self._refuses(each[0].id)])

    async def _exchange(self, partner: Contact, sync: Sync) -> None:
        try:
            async with asyncio.timeout(max(5.0, self._round_s)):
                await call(self._identity, partner, encode(sync), self._receive)
        except (OSError, TimeoutError, SharedLLMError) as error:
            _log.debug("gossip with node %s failed: %s", partner.id, error)
            with self._lock:
                self.peer.unreachable(partner.id)

    async def _greet(self, channel: TlsChannel, caller: Caller) -> Exchange:
        if self._refuses(caller.id):
            raise NotAdmitted(f"Node {caller.id} was revoked by the federation's operator.")
        self._callers.admit(caller.id, self._clock())
        return Exchange(channel, caller.id, self._receive)

    def _news(self, entry: Entry) -> None:
        """Take note of what is new here; of this node's own it is from before a restart."""
        if entry.issuer == self._identity.key.public_bytes:
            self._author.recall(entry)
        self._on_news(entry)

    def _receive(self, sender: str, data: bytes) -> bytes:
        message = decode(data)
        with self._lock:
            answer = self.peer.receive(sender, message, self._clock())
        return b"" if answer is None else encode(answer)

    def _speak(self) -> None:
        """Renew the lease at a third of its life, and vouch for what was published since."""
        now = self._clock()
        if now < self._renew_s:
            return
        self._renew_s = now + self._lease_s / 3
        lease = self._make_lease(self.peer.me.host, self.peer.me.port)
        lease = dataclasses.replace(lease, since_s=self._since_s)
        self._tell(Kind.LEASE, b"", lease.to_bytes(), self._lease_s)
        published = {bytes.fromhex(id): manifest for id, manifest in self._published().items()}
        self.stand_by(Kind.MANIFEST, published, _MANIFEST_S)

    def _keep(self) -> None:
        """Write down who is here, when that has become more or fewer."""
        with self._lock:
            count = sum(1 for _ in self.peer.live(Kind.LEASE, self._clock()))
        if self._memory is not None and count != self._kept:
            self._kept = count
            remember(self._memory, self.nodes())

    def _tell(self, kind: Kind, key: bytes, payload: bytes, life_s: float) -> None:
        try:
            self.say(kind, key, payload, life_s)
        except BadEntry as error:
            _log.warning("nothing could be told to the others: %s", error)
