from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.plugins.client import PluginAddress, PluginClient, PluginError, PluginUnreachable

Answer = tuple[int, bytes]


class Handler(http.server.BaseHTTPRequestHandler):
    asked: list[tuple[str, bytes]]
    answer: Callable[[str], Answer]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, body))
        status, data = type(self).answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        with contextlib.suppress(ConnectionError):  # nobody waits for it any more
            self.end_headers()
            self.wfile.write(data)

    def address_string(self) -> str:
        return ""

    def log_message(self, format: str, *args: object) -> None:
        pass


class Plugin:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, bytes]] = []
        self.answers: dict[str, Answer] = {}
        handler = type("Own", (Handler,), {"asked": self.asked, "answer": staticmethod(self._answer)})
        self._server = socketserver.ThreadingUnixStreamServer(str(path), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def _answer(self, path: str) -> Answer:
        return self.answers.get(path, (200, b"{}"))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Plugin]:
    made = Plugin(tmp_path / "p.sock")
    yield made
    made.close()


class Time:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.at: dict[float, Callable[[], object]] = {}

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        if self.now in self.at:
            self.at[self.now]()


def client_of(path: Path, time: Time | None = None) -> PluginClient:
    time = time or Time()
    return PluginClient("p", PluginAddress(f"unix://{path}"), clock=lambda: time.now, wait=time.wait)


def test_a_call_is_a_post_of_json(plugin: Plugin) -> None:
    plugin.answers["/VolumeDriver.Get"] = (200, b'{"Volume": {"Name": "a"}}')
    assert client_of(plugin.path).call("VolumeDriver.Get", {"Name": "a"}) == {"Volume": {"Name": "a"}}
    assert plugin.asked == [("/VolumeDriver.Get", b'{"Name":"a"}')]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, b'{"Err": "no space"}'), "^X: no space$"),
        ((500, b'{"Err": "no space"}'), "^X: no space$"),
        ((500, b"plain words\n"), "^X: plain words$"),
        ((404, b""), "^X: Not Found$"),
        ((200, b"[1]"), "is no JSON object"),
        ((200, b"{"), "is no JSON object"),
    ],
)
def test_errors_in_the_plugins_own_words(plugin: Plugin, answer: Answer, words: str) -> None:
    plugin.answers["/X"] = answer
    with pytest.raises(PluginError, match=words):
        client_of(plugin.path).call("X")
    assert len(plugin.asked) == 1


@pytest.mark.parametrize("data", [b"", b"null", b"{}\n"])
def test_an_empty_answer_is_fine(plugin: Plugin, data: bytes) -> None:
    plugin.answers["/X"] = (200, data)
    assert client_of(plugin.path).call("X") == {}


def test_one_that_is_not_there_is_tried_for_half_a_minute(tmp_path: Path) -> None:
    time = Time()
    with pytest.raises(PluginUnreachable, match='plugin "p" does not answer at unix://'):
        client_of(tmp_path / "none.sock", time).call("X")
    assert time.waits == [1.0, 2.0, 4.0, 8.0]


def test_one_that_starts_meanwhile_is_reached(tmp_path: Path) -> None:
    time, made = Time(), []
    time.at[3.0] = lambda: made.append(Plugin(tmp_path / "late.sock"))
    try:
        assert client_of(tmp_path / "late.sock", time).call("X") == {}
        assert time.waits == [1.0, 2.0]
    finally:
        for plugin in made:
            plugin.close()


def test_a_call_has_a_bound_and_is_not_sent_twice(plugin: Plugin) -> None:
    going_on = threading.Event()
    Slow = Callable[[str], Answer]

    def slow(_path: str) -> Answer:
        going_on.wait(10)
        return 200, b"{}"

    handler: Slow = slow
    plugin._server.RequestHandlerClass.answer = staticmethod(handler)  # type: ignore[attr-defined]
    try:
        with pytest.raises(PluginError, match="X was not answered within 0 s"):
            client_of(plugin.path).call("X", timeout_s=0.05)
    finally:
        going_on.set()
    assert len(plugin.asked) == 1


def test_close_ends_the_calls_that_wait(plugin: Plugin) -> None:
    arrived, going_on = threading.Event(), threading.Event()

    def slow(_path: str) -> Answer:
        arrived.set()
        going_on.wait(10)
        return 200, b"{}"

    plugin._server.RequestHandlerClass.answer = staticmethod(slow)  # type: ignore[attr-defined]
    client = client_of(plugin.path)
    threading.Thread(target=lambda: (arrived.wait(10), client.close())).start()
    try:
        with pytest.raises(PluginError, match="X failed"):
            client.call("X", timeout_s=10)
    finally:
        going_on.set()


def test_a_long_path_is_reached_too(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    made = Plugin(tmp_path / "s.sock")
    try:
        (tmp_path / "s.sock").rename(folder / "s.sock")
        assert client_of(folder / "s.sock").call("X") == {}
    finally:
        made.close()
