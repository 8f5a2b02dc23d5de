"""Certificates of an API for tests, as openssl makes them: an authority, a server, a client, and a stranger."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make(folder: Path, name: str = "127.0.0.1") -> None:
    """ca.pem; server-cert.pem and -key.pem for `name`; cert.pem and key.pem (the client's); stranger/ likewise."""
    (folder / "stranger").mkdir(parents=True)
    _authority(folder, "")
    _authority(folder / "stranger", "")
    _signed(folder, "server-", f"subjectAltName=IP:{name}\nextendedKeyUsage=serverAuth\n")
    _signed(folder, "", "extendedKeyUsage=clientAuth\n")
    _signed(folder / "stranger", "", "extendedKeyUsage=clientAuth\n")
    (folder / "stranger" / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())


def _authority(folder: Path, prefix: str) -> None:
    _openssl(
        *(
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-days",
            "2",
        ),
        *(
            "-subj",
            "/CN=authority",
            "-keyout",
            folder / f"{prefix}ca-key.pem",
            "-out",
            folder / f"{prefix}ca.pem",
        ),
    )


def _signed(folder: Path, prefix: str, extensions: str) -> None:
    request, wanted = folder / "request.pem", folder / "extensions"
    wanted.write_text(extensions)
    _openssl(
        *("req", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=x"),
        *("-keyout", folder / f"{prefix}key.pem", "-out", request),
    )
    _openssl(
        *("x509", "-req", "-in", request, "-CA", folder / "ca.pem", "-CAkey", folder / "ca-key.pem"),
        *("-CAcreateserial", "-days", "2", "-extfile", wanted, "-out", folder / f"{prefix}cert.pem"),
    )


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
