"""Requests for an operation: path, query, headers and body as the specification has them, or as hostile as can be."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from urllib.parse import quote, quote_plus

from tests.fuzz import values
from tests.fuzz.shapes import Operation, Schema
from tests.fuzz.wire import written

PLACE = re.compile(r"\{(\w+)\}")
# Objects that stand while a round runs (world.py), by the first part of the path.
STANDING = {
    "containers": ("fuzz-run", "fuzz-idle", "fuzz-made"),
    "exec": ("EXEC",),
    "images": ("hello", "hello:latest", "fuzz-tag"),
    "networks": ("fuzz-net", "bridge", "none", "ingress"),
    "volumes": ("fuzz-vol",),
    "nodes": ("self", "host1"),
    "services": ("fuzz-service",),
    "secrets": ("fuzz-secret",),
    "configs": ("fuzz-config",),
    "tasks": ("TASK",),
    "distribution": ("hello",),
    "plugins": ("fuzz-plugin",),
}
IDS = (
    "nosuch", "..", ".", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%00", "%ff%fe", "%", "%zz", "%2", "a%2fb", "a%0d%0aX:y",
    "-", "f" * 64, "a" * 5000, "%F0%9F%98%80", "*", "json", "create", "prune", ":", "@", "a@sha256:b", "UPPER",
    "name%20with%20blank", "%25", "a;b", "a,b", "fuzz-", "0", "1" * 12,
)  # fmt: skip
FILTERS = (
    "{", "[]", "null", "1", '"x"', '{"a":1}', '{"a":[1]}', '{"a":null}', '{"a":{"b":2}}', '{"nosuch":["x"]}', "{}",
    '{"label":["a=b"]}', '{"name":["^fuzz","("]}', '{"id":["["]}', '{"status":["x"]}', '{"until":["x"]}',
    '{"until":["1","2"]}',
    '{"until":["-1h"]}', '{"until":["99999999999999999999"]}', '{"label!":["a"]}', '{"dangling":["maybe"]}',
    '{"type":["x"]}',
    '{"label":{"a":true}}', '{"before":["nosuch"]}', '{"exited":["x"]}', '{"health":["x"]}', '{"role":["x"]}',
    '{"service":["x"]}',
    '{"volume":["\\u0000"]}', '{"network":[""]}', '{"ancestor":["hello"]}', '{"ancestor":[":::"]}', '{"publish":["x"]}',
    '{"desired-state":["x"]}', '{"mode":["x"]}', '{"driver":[""]}', '{"reference":["[", "**"]}', '{"since":["x"]}',
    '{"membership":["x"]}', '{"node.label":["a"]}', '{"expose":["99999/x"]}', '{"is-task":["x"]}', '{"event":["x"]}',
    '{"all":["x"]}', '{"scope":["x"]}', '{"a":' * 2000, "[" * 60_000, "\udcff\udcfe",
)  # fmt: skip
# Parameters that are plain strings, by name.
MEANT: dict[str, tuple[str, ...]] = {
    "platform": ("", "", "linux/amd64"), "signal": ("SIGTERM", "TERM", "15"), "detachKeys": ("", "ctrl-a,q"),
    "path": ("/", "/etc", "/bin/busybox", "/nosuch"), "ps_args": ("", "aux"), "tag": ("", "latest", "fuzz-tag"),
    "repo": ("fuzz-tag",), "fromImage": ("127.0.0.1:1/x",), "fromSrc": ("-",), "container": ("fuzz-idle", "fuzz-run"),
    "networkmode": ("none",), "remote": ("127.0.0.1:1/x", ""), "outputs": ("",), "dockerfile": ("", "Dockerfile"),
    "buildargs": ("{}",), "labels": ("{}",), "cachefrom": ("[]",), "changes": ("", "ENV a=b"), "names": ("hello",),
    "scope": ("", "local", "swarm"), "since": ("0", "1h"), "until": ("1", "1h"), "tail": ("all", "1"),
    "registryAuthFrom": ("spec", "previous-spec"), "rollback": ("", "previous"), "target": ("",), "q": ("1",),
    "t": ("fuzz-tag",), "term": ("127.0.0.1:1/x",),
}  # fmt: skip
WORDS = (
    "1",
    "0",
    "true",
    "",
    "x",
    "-1",
    "1e3",
    "9" * 30,
    "٣",
    "\0",
    "a" * 3000,
    "2020-01-01T00:00:00Z",
    "10m",
    "1.5",
)
HEADERS = (
    ("Content-Type", "text/plain"), ("Content-Type", "application/xml; charset=nosuch"), ("Content-Type", ""),
    ("Content-Type", "application/json; charset=utf-16"), ("Content-Encoding", "gzip"), ("Content-Encoding", "nosuch"),
    ("X-Registry-Auth", "!!!"), ("X-Registry-Auth", "W10="), ("X-Registry-Auth", "bnVsbA=="), ("X-Registry-Config", "x"),
    ("Idempotency-Key", "x"), ("Idempotency-Key", "1-" + "a" * 32), ("Accept", "nosuch/type"), ("Cookie", "=;=;"),
    ("X-Large", "y" * 7000), ("X-Bytes", "\udcff"), ("Expect", "100-continue"), ("Connection", "close"),
    ("Upgrade", "tcp"), ("Upgrade", "h2c"), ("Range", "bytes=-1"), ("Authorization", "Basic x"), ("If-Match", "*"),
)  # fmt: skip
PREFIXES = (
    "",
    "",
    "",
    "/v1.24",
    "/v1.41",
    "/v1.51",
    "/v1.0",
    "/v9.9",
    "/v1",
    "/v1.44/v1.44",
    "/v%D9%A3.%D9%A3",
)


@dataclasses.dataclass(frozen=True)
class Draft:
    operation: Operation
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None

    @property
    def data(self) -> bytes:
        return written(self.operation.method, self.target, self.headers, self.body)

    def __str__(self) -> str:
        body = "" if self.body is None else f" {self.body[:1500]!r} ({len(self.body)} bytes)"
        headers = "".join(f" {name}={value[:40]!r}" for name, value in self.headers)
        return f"{self.operation.method} {self.target[:400]}{headers}{body}"


class Drafting:
    """`names` are the ids that stand for EXEC and TASK; `folder` is the only one of the host that may be mounted."""

    def __init__(self, random_: random.Random, folder: str, names: dict[str, str]) -> None:
        self._random = random_
        self._folder = folder
        self.names = names

    def draft(self, operation: Operation, hostility: float, target: str = "") -> Draft:
        """`hostility` is how probable it is that each part is not meant well; `target` is an object's name."""
        random_ = self._random
        prefix = random_.choice(PREFIXES[:6] if random_.random() > hostility else PREFIXES)
        path = PLACE.sub(lambda _: target or self._name(operation, hostility), operation.path)
        query = self._query(operation, hostility)
        headers = [("Content-Type", "application/json")] if operation.body else []
        if random_.random() < hostility / 3:
            changed = random_.choice(HEADERS)
            headers = [row for row in headers if row[0] != changed[0]] + [changed]
        return Draft(operation, prefix + path + query, tuple(headers), self._body(operation.body, hostility))

    def _name(self, operation: Operation, hostility: float) -> str:
        if self._random.random() < hostility / 2:
            return self._random.choice(IDS)
        name = self._random.choice(STANDING[operation.path.split("/")[1]])
        return self.names.get(name, name)

    def _query(self, operation: Operation, hostility: float) -> str:
        random_ = self._random
        parts = []
        for parameter in operation.among("query"):
            if parameter.get("required") or random_.random() < 0.4:
                for _ in range(random_.choice((1, 1, 1, 1, 3)) if random_.random() < hostility else 1):
                    parts.append(f"{parameter['name']}={self._word(operation, parameter, hostility)}")
        if random_.random() < hostility / 5:
            parts.append(random_.choice(("nosuch=1", "=", "&&", "a=%zz", "%ff=%ff", ";", "?", "x" * 4000)))
        return "?" + "&".join(parts) if parts else ""

    def _word(self, operation: Operation, parameter: Schema, hostility: float) -> str:
        random_ = self._random
        name = parameter["name"]
        if name == "filters":
            text = random_.choice(FILTERS if random_.random() < hostility else FILTERS[10:13])
            return quote_plus(text.encode("utf-8", "surrogateescape"))
        if name in ("t", "timeout") and parameter.get("type") == "integer":
            return random_.choice(("0", "1", "x", "-0", ""))  # a long one is a long answer, as asked for
        if name == "version" and random_.random() > hostility:
            return self.names.get("VERSION", "1")
        if random_.random() < hostility:
            text = random_.choice(WORDS if random_.random() < 0.6 else values.STRINGS)
            return quote(text) if random_.random() < 0.95 else "%ff%"
        if parameter.get("enum"):
            return str(random_.choice(parameter["enum"]))
        kind = parameter.get("type")
        if kind == "boolean":
            return random_.choice(("0", "1", "true", "false"))
        if kind == "integer":
            return random_.choice(("0", "1", "10"))
        return quote(random_.choice(MEANT.get(name, ("fuzz-made", "all", "1", "hello"))))

    def _body(self, schema: Schema | None, hostility: float) -> bytes | None:
        random_ = self._random
        if schema is None:
            return b'{"unasked": 1}' if random_.random() < hostility / 10 else None
        if schema.get("format") == "binary":
            return random_.choice((b"", b"not a tar", b"\0" * 1024, b"\x1f\x8b\x08", b"x" * 100_000))
        value = values.valid(schema, random_)
        for _ in range(random_.choice((1, 1, 2, 4)) if random_.random() < hostility else 0):
            value = values.twisted(value, random_)
        body = values.encoded(values.harmless(value, self._folder))
        if random_.random() < hostility / 6:
            body = self._broken(body)
        return body

    def _broken(self, body: bytes) -> bytes:
        """Still JSON by chance at most."""
        random_ = self._random
        at = random_.randrange(len(body) + 1)
        return random_.choice(
            (
                b"", b" ", b"null", body[:at], body + b"x", body + body, b"\xef\xbb\xbf" + body, body.replace(b'"', b"'"),
                body[:at] + b"\xff" + body[at:], body[:at] + b"\0" + body[at:], json.dumps(body.decode("latin-1")).encode(),
                b"/*" + body, body.decode("latin-1").encode("utf-16"), *values.RAW.values(),
            )
        )  # fmt: skip
