"""A registry in this process that can be made to fail in every way: for what the real one never does."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from tests.images import described, digest_of, image_config, oci_manifest

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class FakeRegistry:
    """`faults`: path ending -> what happens to the next requests for it, one after the other; None: nothing."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.tags: list[str] = []
        self.faults: dict[str, list[Fault | None]] = {}
        self.asked: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.token = ""  # what a request must carry, when it is not empty
        self.account = ("anna", "geheim")
        self.scopes: list[str] = []
        self.host = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeRegistry:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # ---- what it has --------------------------------------------------------------------------------------

    def add_image(
        self, tag: str, layers: Sequence[bytes], pack: Callable[[bytes], bytes] = gzip.compress, **fields: Any
    ) -> str:
        """Digest of its manifest. `pack` makes the blob of a layer."""
        configuration = image_config(layers, **fields)
        packed = [pack(layer) for layer in layers]
        manifest = oci_manifest(configuration, packed)
        for blob, shown in zip(packed, manifest["layers"], strict=True):
            shown["mediaType"] += "+zstd" if blob[:4] == b"\x28\xb5\x2f\xfd" else "+gzip"
        for blob in (configuration, *packed):
            self.blobs[digest_of(blob)] = blob
        return self.add_manifest(tag, json.dumps(manifest).encode(), MANIFEST_TYPE)

    def add_index(self, tag: str, manifests: Mapping[str, str]) -> str:
        """`manifests`: os/architecture -> digest."""
        entries = [
            {
                "mediaType": MANIFEST_TYPE,
                **described(self.manifests[digest][0]),
                "platform": dict(zip(("os", "architecture"), name.split("/"), strict=True)),
            }
            for name, digest in manifests.items()
        ]
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
        return self.add_manifest(tag, json.dumps(index).encode(), INDEX_TYPE)

    def add_manifest(self, tag: str, raw: bytes, media_type: str) -> str:
        digest = digest_of(raw)
        self.manifests[tag] = self.manifests[digest] = (raw, media_type)
        self.tags.append(tag)
        return digest

    # ---- what it answers ----------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        name = path.rpartition("/")[2]
        self.asked[f"{request.method} {name}"] += 1
        if path == "/token":
            return self._give_token(request)
        if wanted := request.headers.get("Range", ""):
            self.ranges.append(wanted)
        for ending, waiting in self.faults.items():
            if path.endswith(ending) and waiting:
                fault = waiting.pop(0)
                failed = await fault(request) if fault else None
                if failed is not None:
                    return failed
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return self._challenge()
        if path == "/v2/":
            return web.json_response({})
        if path.endswith("/tags/list"):
            return self._page_of_tags(request)
        if "/manifests/" in path:
            return self._manifest(name)
        if "/blobs/" in path:
            return await self._blob(request, name)
        return web.json_response({"errors": [{"code": "UNSUPPORTED"}]}, status=404)

    def _challenge(self) -> web.Response:
        realm = f'Bearer realm="http://{self.host}/token",service="test",scope="repository:a:pull"'
        body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        return web.json_response(body, status=401, headers={"WWW-Authenticate": realm})

    def _give_token(self, request: web.Request) -> web.Response:
        self.scopes = request.query.getall("scope", [])
        user = request.headers.get("Authorization", "")
        expected = base64.b64encode(":".join(self.account).encode()).decode()
        if user != f"Basic {expected}":
            return web.json_response({"details": "incorrect username or password"}, status=401)
        return web.json_response({"token": self.token})

    def _page_of_tags(self, request: web.Request) -> web.Response:
        """Two at a time."""
        start = int(request.query.get("from", "0"))
        headers = {}
        if start + 2 < len(self.tags):
            headers["Link"] = f'</v2/a/tags/list?from={start + 2}>; rel="next"'
        return web.json_response({"name": "a", "tags": self.tags[start : start + 2]}, headers=headers)

    def _manifest(self, name: str) -> web.Response:
        if name not in self.manifests:
            body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            return web.json_response(body, status=404)
        raw, media_type = self.manifests[name]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(raw)}
        return web.Response(body=raw, headers=headers)

    async def _blob(self, request: web.Request, digest: str) -> web.StreamResponse:
        blob = self.blobs.get(digest)
        if blob is None:
            return web.json_response({"errors": [{"code": "BLOB_UNKNOWN"}]}, status=404)
        start = 0
        if wanted := request.headers.get("Range", ""):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"} if start else {}
        return web.Response(body=blob[start:], status=206 if start else 200, headers=headers)


# ---- faults -----------------------------------------------------------------------------------------------


def breaks_off(blob: bytes, after: int) -> Fault:
    """Promises the whole blob (from where it was asked for), gives `after` bytes of it, hangs up."""

    async def fault(request: web.Request) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Length": str(len(blob) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(blob) - 1}/{len(blob)}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(blob[start : start + after])
        assert request.transport is not None
        request.transport.close()
        return response

    return fault


def says(status: int, body: Any = None, **headers: str) -> Fault:
    async def fault(_request: web.Request) -> web.StreamResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body or {}, status=status, headers=fields)

    return fault


def gives(data: bytes) -> Fault:
    """The whole of something else, whatever range was asked for."""

    async def fault(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=data)

    return fault
