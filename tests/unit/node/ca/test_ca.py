"""Tokens, the root's signatures, and the node's files after a crash at every point."""

from __future__ import annotations

import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from node.ca import authority, tokens
from node.ca.files import CredentialFiles, Credentials
from node.ca.tls import certificate_identity, renewal_time, validity
from node.rpc import MANAGER, WORKER, Identity

NOW = 1_800_000_000.0
DAY = 24 * 3600.0
ROOT = authority.new_root(NOW)


def signed(node_id: str = "n1", role: str = WORKER, validity_s: float = authority.NODE_VALIDITY_S) -> str:
    request = authority.new_request(authority.new_key())
    return authority.sign(
        ROOT, request, node_id=node_id, role=role, cluster_id="c1", now=NOW, validity_s=validity_s
    )


def credentials() -> Credentials:
    key = authority.new_key()
    certificate = authority.sign(
        ROOT, authority.new_request(key), node_id="n1", role=WORKER, cluster_id="c1", now=NOW
    )
    return Credentials(
        root_pem=ROOT.cert_pem, certificate_pem=certificate, key_pem=authority.key_to_pem(key).decode()
    )


# ---- tokens ----------------------------------------------------------------------------------------------


def test_token_format_and_round_trip():
    assert re.fullmatch(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", ROOT.worker_token)
    token = tokens.parse_token(f" {ROOT.manager_token}\n")
    assert token.digest == ROOT.digest
    assert str(token) == ROOT.manager_token
    assert len({ROOT.worker_token, ROOT.manager_token, tokens.new_token(ROOT.digest)}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SWMTKN-1-",
        ROOT.worker_token[:-1],
        ROOT.worker_token + "0",
        ROOT.worker_token.upper(),
        ROOT.worker_token.replace("SWMTKN-1", "SWMTKN-2"),
        ROOT.worker_token[:-1] + "é",
    ],
    ids=["empty", "prefix only", "shorter", "longer", "upper case", "another version", "not ASCII"],
)
def test_malformed_tokens(text):
    with pytest.raises(tokens.InvalidToken, match="invalid join token"):
        tokens.parse_token(text)


def test_empty_expectation_matches_nothing():
    assert tokens.same_token("a", "a")
    assert not tokens.same_token("", "")


# ---- certificates ----------------------------------------------------------------------------------------


def test_certificate_carries_the_signers_identity_and_dates():
    certificate = signed("n7", MANAGER)
    assert certificate_identity(certificate) == Identity("n7", MANAGER, "c1")
    assert validity(certificate) == (NOW - 3600, NOW + 90 * DAY)
    x509.load_pem_x509_certificate(certificate.encode()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(ROOT.cert_pem.encode())
    )
    start, end = validity(ROOT.cert_pem)
    assert end - start == pytest.approx(20 * 365 * DAY, abs=DAY)


def test_validity_is_at_least_an_hour():
    assert validity(signed(validity_s=1.0))[1] == NOW + 3600


def test_renewal_between_half_and_four_fifths_of_the_life():
    certificate = signed()
    start, end = validity(certificate)
    assert renewal_time(certificate, 0.0) == pytest.approx(start + 0.5 * (end - start))
    assert renewal_time(certificate, 1.0) == pytest.approx(start + 0.8 * (end - start))


def test_bad_requests_are_refused():
    good = authority.new_request(authority.new_key())
    lines = good.splitlines()
    lines[2] = lines[2][::-1]
    with_rsa = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(rsa.generate_private_key(65537, 2048), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    for bad in ("", "garbage", ROOT.cert_pem, "\n".join(lines), with_rsa):
        with pytest.raises(authority.InvalidRequest):
            authority.sign(ROOT, bad, node_id="n", role=WORKER, cluster_id="c", now=NOW)


# ---- files -----------------------------------------------------------------------------------------------


def test_files_round_trip_and_removal(tmp_path):
    files = CredentialFiles(tmp_path / "tls")
    assert files.load() is None
    saved = credentials()
    files.save(saved)
    assert files.load() == saved
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert files.folder.stat().st_mode & 0o777 == 0o700
    files.remove()
    assert files.load() is None
    assert list(files.folder.iterdir()) == []


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_crash_between_the_renames_leaves_one_matching_pair(tmp_path, renames):
    """Replays a save that stopped after so many of its three renames."""
    old, new = credentials(), credentials()
    files = CredentialFiles(tmp_path / "tls")
    files.save(old)
    pending = CredentialFiles(tmp_path / "next")
    pending.save(new)
    moves = [(pending.root, files.root), (pending.key, files.key), (pending.certificate, files.certificate)]
    for number, (source, target) in enumerate(moves):
        beside = target.with_name(target.name + ".new")
        beside.write_bytes(source.read_bytes())
        if number < renames:
            beside.rename(target)
    assert files.load() == (old if renames < 2 else new)


def test_pair_that_does_not_belong_together_is_an_error(tmp_path):
    files = CredentialFiles(tmp_path)
    files.save(credentials())
    files.key.write_text(credentials().key_pem)
    with pytest.raises(ValueError, match="do not belong together"):
        files.load()
