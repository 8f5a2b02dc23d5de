"""Getting a certificate: a joiner by its token, a member by the certificate it has.

Invariant of a join: the token leaves this machine only on a connection to a manager whose certificate was
signed by the root that the token names.
"""

from __future__ import annotations

import ssl

import msgspec

from node.ca import authority, tokens
from node.ca.files import CredentialFiles, Credentials
from node.ca.service import METHOD_ROOT, METHOD_SIGN, SignAnswer, SignRequest
from node.ca.tls import JoinerTls
from node.rpc import RpcClient, RpcError, TlsContexts
from raft.objects.cluster import ManagerLock, RootCA
from raft.objects.node import Availability

CALL_S_MAX = 20.0
ROOT_BYTES_MAX = 64 * 1024
REDIRECTS_MAX = 3


async def join(
    files: CredentialFiles, address: str, token_text: str, availability: Availability = Availability.ACTIVE
) -> SignAnswer:
    """Become a node of the cluster at `address` (host:port of any manager); the files are saved.

    Raises RpcError: invalid_argument for a malformed token, permission_denied for a wrong one or a wrong
    cluster, unavailable.
    """
    try:
        token = tokens.parse_token(token_text)
    except tokens.InvalidToken as error:
        raise RpcError("invalid_argument", str(error)) from error
    root_pem = await fetch_root(address, token.digest)
    return await _obtain(files, JoinerTls(root_pem), address, str(token), availability)


async def renew(files: CredentialFiles, tls: TlsContexts, address: str) -> SignAnswer:
    """A fresh certificate, with the role this node should have now; the files are saved. Raises RpcError."""
    return await _obtain(files, tls, address, token="")


def bootstrap(
    files: CredentialFiles,
    root: RootCA,
    *,
    node_id: str,
    role: str,
    cluster_id: str,
    now: float,
    lock: ManagerLock | None = None,
) -> None:
    """The first manager's own certificate, signed with the root that it has just made."""
    key = authority.new_key()
    certificate = authority.sign(
        root, authority.new_request(key), node_id=node_id, role=role, cluster_id=cluster_id, now=now
    )
    key_pem = authority.key_to_pem(key).decode()
    files.save(Credentials(root_pem=root.cert_pem, certificate_pem=certificate, key_pem=key_pem), lock)


async def fetch_root(address: str, digest: str) -> str:
    """The cluster's root certificate (PEM), checked against the digest. Raises RpcError."""
    client = RpcClient(JoinerTls())
    try:
        answer = await client.call(address, METHOD_ROOT, b"", timeout=CALL_S_MAX)
    except RpcError as error:
        raise _nothing_written(error) from error
    finally:
        await client.close()
    try:
        root_pem = answer[:ROOT_BYTES_MAX].decode("ascii")
        found = tokens.certificate_digest(ssl.PEM_cert_to_DER_cert(root_pem))
    except ValueError as error:
        raise RpcError("unavailable", f"{address} did not answer with a root certificate") from error
    if not tokens.same_token(found, digest):
        raise RpcError(
            "permission_denied",
            f"remote CA does not match fingerprint. Expected: {digest}, {address} has: {found}",
        )
    return root_pem


async def _obtain(
    files: CredentialFiles,
    tls: TlsContexts,
    address: str,
    token: str,
    availability: Availability = Availability.ACTIVE,
) -> SignAnswer:
    key = authority.new_key()
    request = msgspec.json.encode(SignRequest(authority.new_request(key), token, availability))
    client = RpcClient(tls)
    try:
        answer = msgspec.json.decode(await _ask_leader(client, address, request), type=SignAnswer)
    except msgspec.MsgspecError as error:
        raise RpcError("internal", f"{address} answered with a certificate that cannot be read") from error
    finally:
        await client.close()
    key_pem = authority.key_to_pem(key).decode()
    credentials = Credentials(
        root_pem=answer.root_pem, certificate_pem=answer.certificate_pem, key_pem=key_pem
    )
    files.save(credentials, answer.lock)
    return answer


async def _ask_leader(client: RpcClient, address: str, request: bytes) -> bytes:
    """Any manager may be asked; those that do not lead name the leader."""
    for _ in range(REDIRECTS_MAX):
        try:
            return await client.call(address, METHOD_SIGN, request, timeout=CALL_S_MAX)
        except RpcError as error:
            if error.code != "not_leader" or not error.detail:
                raise
            address = error.detail
    raise RpcError("unavailable", "the swarm is electing a leader: try again")


def _nothing_written(error: RpcError) -> RpcError:
    code = "unavailable" if error.code == "maybe_committed" else error.code
    return RpcError(code, error.message, error.detail)
