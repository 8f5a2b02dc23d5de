"""A context as docker's `context export` writes it: a tar (or zip) of meta.json and the files of its TLS.

Owns the two directions between that archive and a row of the contexts' file. What comes from an archive is not
trusted: only names that we know are taken out of it, and only so much of each.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from typing import Any

from cli.connection import Endpoint, TlsFiles
from cli.errors import CliError, UsageError

_FILES = {"ca": "ca.pem", "certificate": "cert.pem", "key": "key.pem"}
_FILE_BYTES_MAX = 10 << 20


def pack(name: str, row: dict[str, Any]) -> bytes:
    tls = row.get("TLS") or {}
    meta = {
        "Name": name,
        "Metadata": {"Description": row.get("Description", "")},
        "Endpoints": {"docker": {"Host": row["Host"], "SkipTLSVerify": bool(tls) and not tls["verify"]}},
    }
    pieces = {"meta.json": json.dumps(meta).encode()}
    for key, file in _FILES.items():
        if tls.get(key):
            try:
                with open(tls[key], "rb") as source:
                    pieces[f"tls/docker/{file}"] = source.read()
            except OSError as error:
                raise CliError(f"cannot read {tls[key]} of context {name}: {error.strerror}") from error
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path, data in pieces.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def unpack(data: bytes, folder: str) -> dict[str, Any]:
    """The row; the files of TLS are written below `folder`."""
    pieces = _pieces(data)
    try:
        meta = json.loads(pieces["meta.json"])
        place = meta["Endpoints"]["docker"]
        host = Endpoint(str(place["Host"])).host
        skips, description = (
            bool(place.get("SkipTLSVerify")),
            str((meta.get("Metadata") or {}).get("Description", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"this is no context: {error!r} in meta.json", hint="`swarmctl context export` writes one"
        ) from error
    files = dict.fromkeys(_FILES, "")
    for key, file in _FILES.items():
        if (content := pieces.get(f"tls/docker/{file}")) is not None:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            files[key] = os.path.join(folder, file)
            with os.fdopen(os.open(files[key], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
                target.write(content)
    tls = TlsFiles(**files, verify=not skips)._asdict() if any(files.values()) or skips else None
    return {"Host": host, "Description": description, "TLS": tls}


def _pieces(data: bytes) -> dict[str, bytes]:
    wanted = {"meta.json", *(f"tls/docker/{file}" for file in _FILES.values())}
    found: dict[str, bytes] = {}
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for info in archive.infolist():
                    if info.filename in wanted and info.file_size <= _FILE_BYTES_MAX:
                        found[info.filename] = archive.read(info)
            return found
        with tarfile.open(fileobj=io.BytesIO(data)) as entries:
            for entry in entries:
                if entry.isfile() and entry.name in wanted and entry.size <= _FILE_BYTES_MAX:
                    source = entries.extractfile(entry)
                    found[entry.name] = source.read() if source else b""
    except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
        raise UsageError(f"this is no archive of a context: {error}") from error
    return found
