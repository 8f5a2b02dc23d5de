"""Three etcd processes on the loopback interface, from Debian's package, unpacked and never installed.

Members trust each other by certificate and take clients over TLS, as our managers do; all other settings are
etcd's defaults.
"""

from __future__ import annotations

import datetime
import ipaddress
import platform
import shutil
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.raft.processes import ROOT, free_ports

UNPACKED = ROOT / ".venv" / "etcd"
START_S_MAX = 20.0


class Unavailable(Exception):
    """etcd cannot be had here; the message says why."""


def program() -> str:
    """Path of an etcd server: an installed one, or Debian's unpacked into .venv. Raises Unavailable."""
    found = shutil.which("etcd") or shutil.which("etcd", path=str(UNPACKED / "usr/bin"))
    if found is not None:
        return found
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("there is no etcd, and no apt-get to get it with")
    UNPACKED.mkdir(parents=True, exist_ok=True)
    try:
        _quietly("apt-get", "download", "etcd-server")
        for package in UNPACKED.glob("etcd-server_*.deb"):
            _quietly("dpkg-deb", "-x", str(package), str(UNPACKED))
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise Unavailable(f"etcd-server cannot be downloaded: {' '.join(reason)}") from error
    found = shutil.which("etcd", path=str(UNPACKED / "usr/bin"))
    if found is None:
        raise Unavailable("etcd-server was downloaded, but has no etcd in it")
    return found


def version(etcd: str) -> str:
    answer = subprocess.run([etcd, "--version"], check=True, capture_output=True, text=True).stdout
    return answer.splitlines()[0].rpartition(" ")[2] + f", {platform.machine()}"


class Cluster:
    """Started when this returns, with a leader. `stop` once."""

    def __init__(self, etcd: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.certificates = Certificates(folder)
        ports = free_ports(6)
        self._client_ports = ports[:3]
        peers = ",".join(f"m{number}=https://127.0.0.1:{port}" for number, port in enumerate(ports[3:]))
        self._processes = [
            subprocess.Popen(
                [etcd, *self._options(folder, number, ports[number], ports[3 + number], peers)],
                stdout=subprocess.DEVNULL,
                stderr=(folder / f"m{number}.log").open("w"),
            )
            for number in range(3)
        ]
        self.leader_port, self.follower_port = self._roles()

    def _options(self, folder: Path, number: int, client_port: int, peer_port: int, peers: str) -> list[str]:
        certificates = self.certificates
        client, peer = f"https://127.0.0.1:{client_port}", f"https://127.0.0.1:{peer_port}"
        trust = ["--client-cert-auth", "--trusted-ca-file", str(certificates.root)]
        trust += ["--peer-client-cert-auth", "--peer-trusted-ca-file", str(certificates.root)]
        trust += ["--cert-file", str(certificates.certificate), "--key-file", str(certificates.key)]
        trust += ["--peer-cert-file", str(certificates.certificate), "--peer-key-file", str(certificates.key)]
        return [
            *("--name", f"m{number}", "--data-dir", str(folder / f"m{number}"), "--logger", "zap"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", peers),
            *trust,
        ]

    def _roles(self) -> tuple[int, int]:
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            leads = {port: self._leads(port) for port in self._client_ports}
            if True in leads.values() and None not in leads.values():
                leader = next(port for port, is_leader in leads.items() if is_leader)
                return leader, next(port for port in self._client_ports if port != leader)
            time.sleep(0.05)
        self.stop()
        raise Unavailable(f"etcd had no leader after {START_S_MAX:g} s")

    def _leads(self, port: int) -> bool | None:
        try:
            with urllib.request.urlopen(
                f"https://127.0.0.1:{port}/metrics", context=self.certificates.client("http/1.1"), timeout=2
            ) as answer:
                text = answer.read().decode()
        except OSError:
            return None
        return "etcd_server_is_leader 1" in text

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


class Certificates:
    """One root and one certificate for the loopback address, which members and clients share."""

    def __init__(self, folder: Path) -> None:
        self.root, self.certificate, self.key = (
            folder / name for name in ("root.crt", "node.crt", "node.key")
        )
        root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        root_name = _name("bench root")
        root = _certificate(root_name, root_name, root_key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        node = (
            _certificate(_name("bench"), root_name, key.public_key())
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        for path, made in ((self.root, root), (self.certificate, node)):
            signed = made.sign(root_key, hashes.SHA256())
            path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def client(self, protocol: str) -> ssl.SSLContext:
        return client_context(self.root.parent, protocol)


def client_context(folder: Path, protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "root.crt"))
    context.load_cert_chain(folder / "node.crt", folder / "node.key")
    context.set_alpn_protocols([protocol])
    return context


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + datetime.timedelta(days=2),
    )


def _quietly(*command: str) -> None:
    subprocess.run(command, cwd=UNPACKED, check=True, capture_output=True)
