"""Values of flags, good and bad; an error always names the value."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import parse, parse_mounts, parse_ports
from cli.errors import UsageError
from cli.moments import moment


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("10s", 10**10),
        ("1m30s", 9 * 10**10),
        ("500ms", 5 * 10**8),
        ("1.5h", 54 * 10**11),
        ("0", 0),
        ("2us", 2000),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse.nanoseconds(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "10", "s", "10x", "1s 2s", "abc", "1000000h1000000000h"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(UsageError, match=f'"{text}"'):
        parse.positive_nanoseconds(text)


def test_negative_duration() -> None:
    with pytest.raises(UsageError, match='"-5s": it must not be negative'):
        parse.positive_nanoseconds("-5s")


@pytest.mark.parametrize(
    ("text", "count"),
    [("512", 512), ("64k", 65536), ("100m", 100 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("1b", 1)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse.size_bytes(text) == count


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "10 20"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UsageError, match=f"'{text}'"):
        parse.size_bytes(text)


def test_cpus() -> None:
    assert parse.nano_cpus("0.5") == 500_000_000
    for text in ("x", "-1", "nan"):
        with pytest.raises(UsageError, match="number"):
            parse.nano_cpus(text)


def test_environment_takes_values_from_files_and_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_US", "here")
    monkeypatch.delenv("NOT_SET", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\nFIRST=1\nFROM_US\n")
    assert parse.environment(["A=b=c", "NOT_SET"], [str(file)]) == ["FIRST=1", "FROM_US=here", "A=b=c"]
    with pytest.raises(UsageError, match="no-such-file"):
        parse.environment([], [str(tmp_path / "no-such-file")])


def test_filters_collect_values_of_one_key() -> None:
    assert parse.filters(["name=a", "label=x=y", "name=b"]) == {"name": ["a", "b"], "label": ["x=y"]}
    with pytest.raises(UsageError, match="expected name=value"):
        parse.filters(["name"])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hello", ("hello", "latest")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest")),
        ("localhost:5000/a:1", ("localhost:5000/a", "1")),
        ("a@sha256:00", ("a", "sha256:00")),
    ],
)
def test_references(text: str, parts: tuple[str, str]) -> None:
    assert parse.reference(text) == parts


def test_ports_of_containers() -> None:
    exposed, bindings = parse_ports.container_ports(
        ["8080:80", "127.0.0.1:53:53/udp", "9000-9001:90-91", "70", "[::1]:5:6"], ["4000"]
    )
    assert bindings == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
        "90/tcp": [{"HostIp": "", "HostPort": "9000"}],
        "91/tcp": [{"HostIp": "", "HostPort": "9001"}],
        "70/tcp": [{"HostIp": "", "HostPort": ""}],
        "6/tcp": [{"HostIp": "::1", "HostPort": "5"}],
    }
    assert set(exposed) == {*bindings, "4000/tcp"}


def test_ports_of_services() -> None:
    assert parse_ports.service_ports(["8080:80", "published=53,target=53,protocol=udp,mode=host", "90"]) == [
        {"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress", "PublishedPort": 8080},
        {"Protocol": "udp", "TargetPort": 53, "PublishMode": "host", "PublishedPort": 53},
        {"Protocol": "tcp", "TargetPort": 90, "PublishMode": "ingress"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80:",
        "0:80",
        "65536:80",
        "a:80",
        "80-70",
        "1-2:3-5",
        "80/xyz",
        "published=1",
        "target=1,mode=x",
        "target=1,a=b",
    ],
)
def test_bad_ports(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ports.service_ports([text])


def test_service_port_has_no_address() -> None:
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:80:80"):
        parse_ports.service_ports(["127.0.0.1:80:80"])


def test_mounts() -> None:
    assert parse_mounts.mount("type=bind,src=/a,dst=/b,readonly") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
    }
    options = "volume-label=k=1,volume-opt=o=x,volume-nocopy,volume-subpath=a"
    assert parse_mounts.mount(f"target=/d,source=v,{options}") == {
        "Type": "volume",
        "Source": "v",
        "Target": "/d",
        "VolumeOptions": {
            "Labels": {"k": "1"},
            "DriverConfig": {"Options": {"o": "x"}},
            "NoCopy": True,
            "Subpath": "a",
        },
    }
    assert parse_mounts.mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700")["TmpfsOptions"] == {
        "SizeBytes": 1 << 20,
        "Mode": 0o700,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type=bind,target=/a", "source is required"),
        ("source=v", "target is required"),
        ("type=disk,target=/a", '"disk"'),
        ("type=tmpfs,target=/a,source=b", "takes no source"),
        ("target=/a,colour=red", "colour"),
        ("target=/a,tmpfs-size=1m", "cannot mix"),
        ("target", "key=value"),
        ("target=/a,readonly=maybe", "maybe"),
    ],
)
def test_bad_mounts(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_mounts.mount(text)


def test_volumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_mounts.volume("data:/d:ro") == ("bind", "data:/d:ro")
    assert parse_mounts.volume("./x:/d") == ("bind", f"{tmp_path}/x:/d")
    assert parse_mounts.volume("/d") == ("anonymous", "/d")
    for text in ("d", "a:b", "a:/b:ro:x", ":/a"):
        with pytest.raises(UsageError, match=f'"{text}"'):
            parse_mounts.volume(text)


def test_files_of_secrets_and_configs() -> None:
    assert parse_mounts.file_reference("key", "secret")["File"]["Name"] == "key"
    assert parse_mounts.file_reference("conf", "config")["File"]["Name"] == "/conf"
    reference = parse_mounts.file_reference("source=key,target=/etc/k,uid=5,mode=0400", "secret")
    assert reference == {"Name": "key", "File": {"UID": "5", "GID": "0", "Mode": 0o400, "Name": "/etc/k"}}
    with pytest.raises(UsageError, match="source is required"):
        parse_mounts.file_reference("target=x", "secret")


def test_moments() -> None:
    assert moment("") == ""
    assert moment("12.5") == "12.5"
    assert moment("1970-01-01T00:01:00Z") == "60.0"
    assert moment("1970-01-02") == "86400.0"
    assert moment("2026-01-02T03:04:05.123456789Z") == "1767323045.123456789"
    assert moment("2026-01-02T04:04:05.5+01:00") == "1767323045.5"
    with pytest.raises(UsageError, match="2026-13-99"):
        moment("2026-13-99")
