"""`swarmd` itself, as far as it goes without a daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.settings import DefaultUlimit
from node.config import ConfigError
from node.hosts import TcpHost, UnixHost
from node.main import parse_arguments

ROOT = Path(__file__).resolve().parents[3]


def test_no_daemon_without_its_assertions() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "node.main"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "without -O" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "x"], "--label x: must be KEY=VALUE"),
        (["--listen-port", "0"], "--listen-port 0"),
        (["--host", "tcp://1.2.3.4:1"], "without TLS everybody who reaches this address is root"),
        (["-H", "fd://", "-H", "tcp://1.2.3.4"], "--host tcp://1.2.3.4:2375: without TLS"),
        (["-H", "npipe://x"], "use unix:///absolute/path, tcp://address:port or fd://"),
        (["--registry-mirror", "mirror.example"], "invalid mirror"),
        (["--max-concurrent-downloads", "0"], "invalid max concurrent downloads"),
        (["--live-restore=false"], "containers always outlive the daemon"),
        (["--default-shm-size", "much"], "default-shm-size: invalid size: 'much'"),
        (["--log-level", "loud"], "invalid logging level: loud"),
        (["--dns", "nowhere"], "nowhere is not an ip address"),
        (["--default-address-pool", "base=10.0.0.0/16,size=8"], "default-address-pools"),
        (["--metrics-addr", "here"], "--metrics-addr here"),
    ],
)
def test_wrong_settings_are_named(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_arguments([*arguments, "--config-file", no_settings(tmp_path)])


def no_settings(folder: Path) -> str:
    path = folder / "daemon.json"
    path.write_text("")
    return str(path)


def test_settings_of_the_command_line(tmp_path: Path) -> None:
    words = "-H unix:///a -H tcp://[::1] --tlsverify --label a=b=c --log-opt max-size=1m --debug=false"
    words += (
        " --default-ulimit nofile=1:2 --default-shm-size 1m --log-level warn --data-root /r --dns 10.0.0.1"
    )
    config = parse_arguments([*words.split(), "--config-file", no_settings(tmp_path)])
    assert config.hosts == (UnixHost(Path("/a")), TcpHost("::1", 2376))
    assert config.tls is not None and config.tls.verify
    assert (config.labels, config.live.debug, config.log_level) == ({"a": "b=c"}, False, "warn")
    defaults = config.live.defaults
    assert (defaults.log_options, defaults.ulimits) == ({"max-size": "1m"}, (DefaultUlimit("nofile", 1, 2),))
    assert (defaults.shm_size, defaults.dns, config.root) == (1 << 20, ("10.0.0.1",), Path("/r"))


@pytest.mark.parametrize("words", ["--tls=false", "--tlsverify=false"])
def test_tcp_without_tls_can_be_asked_for(words: str, tmp_path: Path) -> None:
    config = parse_arguments(["-H", "tcp://", words, "--config-file", no_settings(tmp_path)])
    assert (config.hosts, config.tls) == ((TcpHost("localhost", 2375),), None)


def test_settings_can_be_tried(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    for text, code, words in (
        ('{"log-opts": {"max-size": "1m"}}', 0, "configuration OK"),
        ('{"log-opts": {"colour": "red"}}', 1, "unknown log opt 'colour'"),
        ('{"colour": "red"}', 2, "the following directives don't match any configuration option: colour"),
    ):
        path.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "node.main", "--validate", "--config-file", str(path)],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, words in done.stdout + done.stderr) == (code, True), done.stderr
