"""TLS between nodes: version 1.3 only, and nothing is trusted but the federation's own authority.

Names of hosts prove nothing here (home machines have none), so ``check_hostname`` is off and every caller
compares the node id and role of the certificate (``certificates.read_peer``) with what it expected.

*Covered*: another federation's certificate, a self-signed one, an older TLS, an operator's certificate used
to serve, session resumption past a certificate's end (there is none). *Not covered*: revocation, which is
the coordinator's list and the proxy's ``admit``.
"""

from __future__ import annotations

import functools
import socket
import ssl
import threading
import weakref
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sharedllm.nodes.errors import NotAdmitted
from sharedllm.nodes.identity.certificates import Peer, public_key_of, read_certificate, read_peer
from sharedllm.nodes.identity.keys import NodeKey

__all__ = ["COORDINATOR_NAME", "Identity", "client_context", "pinned_context", "server_context"]

# Nodes ask for it (SNI), so that a coordinator that also serves a public name shows them its own certificate.
COORDINATOR_NAME = "coordinator.sharedllm.internal"


class Identity:
    """A node as its state folder has it: key, certificate, role and the federation's authority.

    ``reload`` after a renewal also updates every live context that was made from it. Contexts may be used in
    other threads while that happens only through ``wrap``, which excludes the two from each other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._contexts: weakref.WeakSet[ssl.SSLContext] = weakref.WeakSet()
        self._read()

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """The node whose state is in ``folder``: ``node.key``, ``node.crt`` and ``ca.crt``.

        Raises ``NotAdmitted`` if it has not joined, or if the files don't belong together.
        """
        return cls(folder)

    def reload(self) -> None:
        """Read the folder again and show the new certificate on every connection made from now on.

        Raises ``NotAdmitted``, and keeps the old certificate, if the new one is not for this node's key.
        """
        with self._lock:
            self._read()
            for context in self._contexts:
                context.load_cert_chain(self._certificate_path, self._key_path)

    def wrap(
        self, context: ssl.SSLContext, *, server_side: bool
    ) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        """A TLS session in memory: the session, what arrives for it, and what it wants sent."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with self._lock:
            return context.wrap_bio(incoming, outgoing, server_side=server_side), incoming, outgoing

    def wrap_socket(self, context: ssl.SSLContext, raw: socket.socket) -> ssl.SSLSocket:
        """A client's TLS socket over a connected ``raw`` one, before its handshake."""
        with self._lock:
            return context.wrap_socket(raw, do_handshake_on_connect=False, suppress_ragged_eofs=False)

    def own_certificate(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """``context``, showing this node's certificate now and after every ``reload``."""
        with self._lock:
            context.load_cert_chain(self._certificate_path, self._key_path)
            self._contexts.add(context)
        return context

    @functools.cached_property
    def client(self) -> ssl.SSLContext:
        """The one client context that this node's calls share; use it through ``wrap`` or ``wrap_socket``."""
        return client_context(self)

    @property
    def _key_path(self) -> Path:
        return self.folder / "node.key"

    @property
    def _certificate_path(self) -> Path:
        return self.folder / "node.crt"

    def _read(self) -> None:
        paths = (self._key_path, self._certificate_path, self.folder / "ca.crt")
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            raise NotAdmitted(
                f"The node in {self.folder} has not joined a federation ({', '.join(missing)} missing). "
                "Run: sharedllm join URL TOKEN."
            )
        key = NodeKey.load_or_create(self._key_path)
        certificate, ca = self._certificate_path.read_bytes(), paths[2].read_bytes()
        peer = check_issued(certificate, ca, key)
        self.key: NodeKey = key
        self.peer: Peer = peer
        self.id: str = peer.id
        self.role: str = peer.role
        self.certificate: bytes = certificate
        self.ca: bytes = ca
        self.ca_public_key: Ed25519PublicKey = public_key_of(read_certificate(ca))


def check_issued(certificate: bytes, ca: bytes, key: NodeKey) -> Peer:
    """The node that ``certificate`` names, if it is for ``key`` and ``ca`` issued it (both PEM); dates aside.

    Raises ``NotAdmitted`` otherwise.
    """
    issued, issuer = read_certificate(certificate), read_certificate(ca)
    peer = read_peer(certificate)
    if peer.id != key.id:
        raise NotAdmitted(
            f"The certificate is for node {peer.id}, but the key beside it belongs to {key.id}."
        )
    try:
        issued.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        raise NotAdmitted(
            f"The certificate of node {peer.id} was not issued by the authority beside it. Join again."
        ) from None
    return peer


def server_context(
    identity: Identity,
    *,
    client_certificates: Literal["required", "optional"],
    public: tuple[Path, Path] | None = None,
) -> ssl.SSLContext:
    """A TLS 1.3 server of this node that asks for client certificates of this federation.

    ``public`` (certificate chain, key) is shown to clients that ask for any other name than
    ``COORDINATOR_NAME``, such as browsers. Raises ``NotAdmitted`` when it can't be loaded.
    """
    context = _serving(identity, client_certificates)
    if public is None:
        return identity.own_certificate(context)
    outward = _serving(identity, client_certificates)
    try:
        outward.load_cert_chain(*public)
    except OSError as error:
        raise NotAdmitted(
            f"The certificate {public[0]} with key {public[1]} can't be used ({error}). "
            "Give a PEM chain and its own unencrypted key."
        ) from None

    def choose(session: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name is not None and name != COORDINATOR_NAME:
            session.context = outward

    context.sni_callback = choose
    return identity.own_certificate(context)


def client_context(identity: Identity) -> ssl.SSLContext:
    """A TLS 1.3 client that shows this node's certificate and trusts the federation's authority alone.

    The peer's node id and role are the caller's to check: ``read_peer(socket.getpeercert(True))``.
    """
    return identity.own_certificate(pinned_context(identity.ca))


def pinned_context(ca: bytes) -> ssl.SSLContext:
    """A TLS 1.3 client without a certificate that trusts one authority (PEM) alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _strict(context, ca)


def _serving(identity: Identity, client_certificates: Literal["required", "optional"]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _strict(context, identity.ca)
    if client_certificates == "optional":
        context.verify_mode = ssl.CERT_OPTIONAL
    # without session tickets nothing resumes a session past its certificate's end
    context.num_tickets = 0
    return context


def _strict(context: ssl.SSLContext, ca: bytes) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=ca.decode("ascii"))
    return context
