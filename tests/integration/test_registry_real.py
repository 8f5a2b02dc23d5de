"""Pulls and pushes with the real docker-registry: TLS, accounts, tokens, mounts, resumption. Needs no root."""

from __future__ import annotations

import base64
import contextlib
import datetime
import io
import ipaddress
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from engine.errors import EngineError, InvalidParameter, NotFound, Unauthorized
from engine.events import EventBus
from engine.images.store import ImageStore
from engine.registry.access import RegistryAccess
from engine.registry.credentials import ANONYMOUS, Credentials
from engine.registry.endpoints import Endpoint
from engine.registry.service import RegistryService
from engine.registry.settings import RegistrySettings
from engine.registry.transport import client_session
from tests.images import digest_of, image_archive, image_config, tar_of
from tests.memory_driver import MemoryDriver
from tests.registries import PASSWORD, USER, Registry, free_port, registry

BASE = tar_of({"etc": None, "etc/os": b"small\n"})
TOP = tar_of({"app": os.urandom(300_000)})


class Host:
    """The images of one host, and its way to registries."""

    def __init__(self, folder: Path) -> None:
        self.driver = MemoryDriver()
        self.store = ImageStore(folder / "images", self.driver)
        (folder / "tmp").mkdir()
        self.service = RegistryService(
            lambda: RegistrySettings(certs_dir=folder / "certs"), self.store, EventBus(), folder / "tmp"
        )

    def load(self, *names: str, compress: bool = False) -> str:
        archive = image_archive([BASE, TOP], names=names, compress=compress, layout="oci")
        self.store.load(io.BytesIO(archive), lambda message: None)
        return self.store.resolve(names[0]).id

    async def pull(self, ref: str, auth: str = "", **options: bool) -> list[str]:
        return [str(m.get("status")) async for m in self.service.pull(ref, auth, **options)]

    async def push(self, name: str, tag: str = "", auth: str = "") -> list[str]:
        return [str(m.get("status")) async for m in self.service.push(name, tag, auth)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "one").mkdir()
    return Host(tmp_path / "one")


@pytest.fixture
def other(tmp_path: Path) -> Host:
    (tmp_path / "other").mkdir()
    return Host(tmp_path / "other")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("plain")) as found:
        yield found


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("locked"), accounts=True) as found:
        yield found


def header(user: str, password: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"username": user, "password": password}).encode()).decode()


@pytest.mark.parametrize("compress", [False, True])
async def test_what_one_host_pushes_another_pulls(
    host: Host, other: Host, plain: Registry, compress: bool
) -> None:
    name = f"{plain.host}/way{compress:d}/hello"
    image_id = host.load(f"{name}:1", compress=compress)
    said = await host.push(name, "1")
    assert said[0] == f"The push refers to repository [{name}]"
    assert said.count("Pushed") == 2
    digest = host.store.resolve(image_id).repo_digests[0].partition("@")[2]
    assert f"1: digest: {digest} size: " in said[-2]
    await other.pull(f"{name}:1")
    pulled = other.store.resolve(f"{name}@{digest}")
    assert (pulled.id, pulled.repo_tags) == (image_id, [f"{name}:1"])
    assert sorted(other.driver.layers[pulled.chain_ids[1]]) == ["app"]
    again = await host.push(name, "1")
    assert again.count("Layer already exists") == 2
    assert f"1: digest: {digest} size: " in again[-2]
    # What was pulled goes on under another name with the very same digest.
    other.store.tag(image_id, f"{plain.host}/on{compress:d}", "2")
    mounted = await other.push(f"{plain.host}/on{compress:d}", "2")
    assert mounted.count(f"Mounted from way{compress:d}/hello") == 2
    assert f"{plain.host}/on{compress:d}@{digest}" in other.store.resolve(image_id).repo_digests


async def test_all_tags_go_and_come(host: Host, other: Host, plain: Registry) -> None:
    name = f"{plain.host}/tags"
    host.load(*(f"{name}:{tag}" for tag in ("a", "b", "c")))
    await host.push(name)
    await other.pull(name, all_tags=True)
    assert [found.tag for found in other.store.tags_of(name)] == ["a", "b", "c"]


async def test_a_registry_is_asked_what_it_has(host: Host, plain: Registry) -> None:
    name = f"{plain.host}/look"
    image_id = host.load(f"{name}:1")
    await host.push(name, "1")
    shown = await host.service.distribution(f"{name}:1")
    digest = host.store.resolve(image_id).repo_digests[0].partition("@")[2]
    assert shown["Descriptor"]["digest"] == digest
    assert shown["Platforms"][0]["os"] == "linux"
    with pytest.raises(Unauthorized, match="manifest unknown"):
        await host.service.distribution(f"{name}:2")


async def test_what_is_not_there_is_said_in_dockers_words(host: Host, plain: Registry) -> None:
    with pytest.raises(
        NotFound, match=r"manifest for .*/nosuch:1 not found: manifest unknown: manifest unknown"
    ):
        await host.pull(f"{plain.host}/nosuch:1")
    with pytest.raises(NotFound, match="An image does not exist locally with the tag: nosuch"):
        await host.push("nosuch", "1")


async def test_a_broken_download_goes_on_by_range(host: Host, other: Host, plain: Registry) -> None:
    name = f"{plain.host}/range"
    host.load(f"{name}:1")
    await host.push(name, "1")
    packed = host.store.packed(digest_of(TOP))
    assert packed is not None
    folder = plain.folder / "data/docker/registry/v2/blobs/sha256"
    stored = folder / packed.digest[7:9] / packed.digest[7:] / "data"
    other.store.incoming.part(packed.digest).write_bytes(stored.read_bytes()[:200_000])
    messages = [message async for message in other.service.pull(f"{name}:1")]
    first = next(m for m in messages if m.get("status") == "Downloading" and m["id"] == packed.digest[7:19])
    assert first["progressDetail"] == {"current": 200_000, "total": packed.size}
    assert other.store.resolve(f"{name}:1")


async def test_accounts(host: Host, other: Host, locked: Registry) -> None:
    name = f"{locked.host}/private"
    host.load(f"{name}:1")
    with pytest.raises(EngineError, match="no basic auth credentials"):
        await host.push(name, "1")
    await host.push(name, "1", header(USER, PASSWORD))
    for auth, words in (("", "no basic auth credentials"), (header(USER, "falsch"), "unauthorized")):
        with pytest.raises(EngineError, match=words):
            await other.pull(f"{name}:1", auth)
    await other.pull(f"{name}:1", header(USER, PASSWORD))
    good = Credentials(USER, PASSWORD, serveraddress=locked.host)
    assert (await host.service.log_in(good))["Status"] == "Login Succeeded"
    with pytest.raises(Unauthorized, match="unauthorized: authentication required"):
        await host.service.log_in(Credentials(USER, "falsch", serveraddress=locked.host))


# ---- TLS --------------------------------------------------------------------------------------------------


def certificate(folder: Path) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("secure")
    with registry(folder, tls=certificate(folder)) as found:
        yield found


async def ping(certs: Path, way: Endpoint) -> None:
    access = RegistryAccess(lambda: RegistrySettings(certs_dir=certs))
    async with client_session() as session:
        await (await access.connect(session, way, ANONYMOUS, [])).ping()


async def test_an_unknown_authority_is_refused_until_its_certificate_is_there(
    secure: Registry, tmp_path: Path
) -> None:
    way = Endpoint(f"https://{secure.host}", verify=True)
    with pytest.raises(EngineError, match="x509: certificate signed by unknown authority"):
        await ping(tmp_path, way)
    (tmp_path / secure.host).mkdir()
    (tmp_path / secure.host / "ca.crt").write_bytes((secure.folder / "cert.pem").read_bytes())
    await ping(tmp_path, way)
    (tmp_path / secure.host / "client.cert").write_text("x")
    with pytest.raises(InvalidParameter, match=r"missing key .*client\.key for client certificate"):
        await ping(tmp_path, way)


async def test_tls_on_a_loopback_address_is_taken_as_it_is(host: Host, other: Host, secure: Registry) -> None:
    name = f"{secure.host}/tls"
    host.load(f"{name}:1")
    await host.push(name, "1")
    await other.pull(f"{name}:1")
    assert other.store.resolve(f"{name}:1")


async def test_https_to_a_plain_registry_is_named(plain: Registry, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="http: server gave HTTP response to HTTPS client"):
        await ping(tmp_path, Endpoint(f"https://{plain.host}", verify=True))


# ---- tokens -----------------------------------------------------------------------------------------------


class TokenServer:
    """Gives what is asked for to whoever has the account, and nothing to write to anybody else."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(self.key, hashes.SHA256())
        )
        self.bundle = folder / "tokens.pem"
        self.bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.scopes: list[list[str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        scopes = request.query.getall("scope", [])
        self.scopes.append(scopes)
        known = request.headers.get("Authorization") == Credentials(USER, PASSWORD).basic
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [a for a in actions.split(",") if known or a == "pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        return web.json_response({"token": self._token(access)})

    def _token(self, access: list[dict[str, object]]) -> str:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": "",
            "aud": "reg",
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": "1",
        }
        signed = b".".join(
            _plain64(json.dumps(part).encode()) for part in (head, {**claims, "access": access})
        )
        signature = self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return (signed + b"." + _plain64(signature)).decode()


def _plain64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@contextlib.asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[tuple[Registry, TokenServer]]:
    server, port = TokenServer(folder), free_port()
    app = web.Application()
    app.router.add_get("/token", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    auth = (
        f"auth: {{token: {{realm: 'http://127.0.0.1:{port}/token', service: reg, issuer: tests, "
        f"rootcertbundle: '{server.bundle}'}}}}"
    )
    try:
        with registry(folder, extra=auth) as found:
            yield found, server
    finally:
        await runner.cleanup()


async def test_tokens(host: Host, other: Host, tmp_path: Path) -> None:
    async with guarded(tmp_path) as (found, server):
        name = f"{found.host}/team/app"
        host.load(f"{name}:1")
        with pytest.raises(EngineError, match="denied: requested access to the resource is denied"):
            await host.push(name, "1")
        await host.push(name, "1", header(USER, PASSWORD))
        assert server.scopes[-1] == ["repository:team/app:pull,push"]
        await other.pull(f"{name}:1")
        assert server.scopes[-1] == ["repository:team/app:pull"]
        assert other.store.resolve(f"{name}:1").id == digest_of(image_config([BASE, TOP]))
