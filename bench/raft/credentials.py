"""Certificates for managers under measurement, as a founding manager and its joiners would have them."""

from __future__ import annotations

import time
from pathlib import Path

from node.ca import authority
from node.ca.files import CredentialFiles, Credentials
from node.rpc import MANAGER

CLUSTER = "bench"


def write(folder: Path, node_ids: list[str]) -> None:
    """A root that is thrown away, and in `folder`/node id/tls each node's certificate."""
    root = authority.new_root(time.time())
    for node_id in node_ids:
        key = authority.new_key()
        certificate = authority.sign(
            root,
            authority.new_request(key),
            node_id=node_id,
            role=MANAGER,
            cluster_id=CLUSTER,
            now=time.time(),
        )
        credentials = Credentials(
            root_pem=root.cert_pem,
            certificate_pem=certificate,
            key_pem=authority.key_to_pem(key).decode(),
        )
        CredentialFiles(folder / node_id / "tls").save(credentials)
