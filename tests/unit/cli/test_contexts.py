"""Which daemon a command speaks to, and the contexts' file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.connection import DEFAULT_HOST, Endpoint, TlsFiles
from cli.contexts import Flags, Store, current_name, endpoint
from cli.errors import CliError, UsageError
from cli.main import main


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"SWARMCTL_CONFIG": str(tmp_path / "config"), "HOME": "/h"}


def with_context(environment: dict[str, str], name: str, host: str, current: str = "default") -> None:
    store = Store(environment)
    store.rows[name] = {"Host": host, "Description": "", "TLS": None}
    store.current = current
    store.save()


def test_who_is_asked_in_which_order(environment: dict[str, str]) -> None:
    assert endpoint(Flags(), environment) == Endpoint(DEFAULT_HOST)
    with_context(environment, "far", "tcp://far:1", current="far")
    assert endpoint(Flags(), environment).host == "tcp://far:1"
    assert endpoint(Flags(context="default"), environment).host == DEFAULT_HOST
    environment["DOCKER_HOST"] = "unix:///docker"
    assert (endpoint(Flags(), environment).host, current_name(environment)) == ("unix:///docker", "default")
    environment["SWARMCTL_HOST"] = "unix:///ours"
    assert endpoint(Flags(), environment).host == "unix:///ours"
    assert endpoint(Flags(context="far"), environment).host == "tcp://far:1"
    assert endpoint(Flags(host="unix:///flag"), environment).host == "unix:///flag"
    with pytest.raises(UsageError, match="cannot specify both --host and --context"):
        endpoint(Flags(host="unix:///flag", context="far"), environment)
    with pytest.raises(CliError, match='context "near": context not found'):
        endpoint(Flags(context="near"), environment)


def test_tls_is_for_tcp_and_only_when_it_is_asked_for(environment: dict[str, str]) -> None:
    environment["DOCKER_CERT_PATH"] = "/certs"
    assert endpoint(Flags(host="tcp://a:1"), environment).tls is None
    assert endpoint(Flags(host="unix:///a", tlsverify=True), environment).tls is None
    files = TlsFiles("/certs/ca.pem", "/certs/cert.pem", "/certs/key.pem", verify=True)
    assert endpoint(Flags(host="tcp://a:1", tlsverify=True), environment).tls == files
    own = endpoint(Flags(host="tcp://a:1", tls=True, tlscacert="/x"), environment).tls
    assert own == files._replace(ca="/x", verify=False)
    environment["DOCKER_TLS_VERIFY"] = "1"
    assert endpoint(Flags(host="tcp://a:1"), environment).tls == files


def test_a_broken_file_is_named(environment: dict[str, str]) -> None:
    with_context(environment, "far", "tcp://far:1")
    (Path(environment["SWARMCTL_CONFIG"]) / "contexts.json").write_text("{")
    with pytest.raises(CliError, match=r"cannot read .*contexts.json"):
        endpoint(Flags(), environment)


def test_the_commands(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DOCKER_HOST", "SWARMCTL_HOST", "DOCKER_CONTEXT", "SWARMCTL_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SWARMCTL_CONFIG", environment["SWARMCTL_CONFIG"])
    place = "host=tcp://far:2376,ca=/c,cert=/d,key=/e"
    assert main(["context", "create", "far", "--docker", place, "--description", "there"]) == 0
    assert main(["context", "create", "far"]) == 1
    assert main(["context", "create", "default"]) == 1
    assert main(["context", "create", "odd", "--docker", "colour=red"]) == 1
    assert main(["context", "use", "far"]) == 0
    capsys.readouterr()
    assert main(["context", "show"]) == 0
    assert main(["context", "ls"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("far\n")
    assert "far *" in shown and "tcp://far:2376" in shown and "there" in shown
    assert main(["context", "inspect"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["Endpoints"]["docker"] == {"Host": "tcp://far:2376", "SkipTLSVerify": False}
    assert row["TLSMaterial"]["docker"] == ["/c", "/d", "/e"]
    assert main(["context", "rm", "far"]) == 1
    assert "is in use" in capsys.readouterr().err
    assert main(["context", "rm", "-f", "far"]) == 0
    assert Store(environment).current == "default"
