"""What a sandbox sees of the names on its networks."""

from __future__ import annotations

import dnslib
import pytest

from overlay_net import dns_message, dns_names
from overlay_net.dns_message import Question
from overlay_net.dns_names import Visible, Zone

TASK = "web.1.kq7x2m0s9d8f7g6h5j4k3l2z1"


def ask(networks: list[Visible], name: str, kind: str = "A", klass: str = "IN") -> list[str] | None:
    made = dnslib.DNSRecord(
        q=dnslib.DNSQuestion(name, getattr(dnslib.QTYPE, kind), getattr(dnslib.CLASS, klass))
    )
    question = dns_message.read(bytes(made.pack()))
    assert isinstance(question, Question)
    found = dns_names.records(question, networks)
    if found:
        assert dnslib.DNSRecord.parse(dns_message.reply(question, found)).rr[0].ttl == dns_names.TTL_S
    return None if found is None else [str(record.rdata) for record in found]


@pytest.fixture
def zone() -> Zone:
    made = Zone()
    made.set_cluster(
        {
            "Web": ("10.0.1.2",),
            "tasks.web": ("10.0.1.3", "10.0.1.4"),
            TASK: ("10.0.1.3",),
            "idle": (),
        }
    )
    for name in ("db", "c0ffee000000", "store"):
        made.add("c0ffee000000ffff", name, "10.0.1.50")
    made.add("deadbeef0000ffff", "DB2", "10.0.1.51")
    made.add("deadbeef0000ffff", "store", "10.0.1.51")
    return made


@pytest.fixture
def seen(zone: Zone) -> list[Visible]:
    return [Visible("Apps", zone)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", ["10.0.1.2"]),
        ("WEB.", ["10.0.1.2"]),
        (TASK, ["10.0.1.3"]),
        ("tasks.web", ["10.0.1.3", "10.0.1.4"]),
        ("idle", []),
        ("db", ["10.0.1.50"]),
        ("c0ffee000000", ["10.0.1.50"]),
        ("db2", ["10.0.1.51"]),
        ("store", ["10.0.1.50", "10.0.1.51"]),
        ("web.apps", ["10.0.1.2"]),
        ("tasks.web.APPS", ["10.0.1.3", "10.0.1.4"]),
        ("web.other", None),
        ("apps", None),
        ("nosuch", None),
        ("example.com", None),
        (".", None),
    ],
)
def test_names(seen: list[Visible], name: str, expected: list[str] | None) -> None:
    assert ask(seen, name) == expected


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "SRV", "HTTPS"])
def test_a_name_with_addresses_only_has_nothing_else(seen: list[Visible], kind: str) -> None:
    assert ask(seen, "web", kind) == []
    assert ask(seen, "nosuch", kind) is None


def test_other_classes_are_not_ours(seen: list[Visible]) -> None:
    assert ask(seen, "web", "TXT", "CH") is None


def test_dots_in_the_name_of_the_network() -> None:
    inner = Zone()
    inner.add("s", "a", "10.0.2.2")
    inner.add("s", "a.b", "10.0.2.3")
    seen = [Visible("b.c", inner), Visible("c", inner)]
    assert ask(seen, "a.b.c") == ["10.0.2.3"]
    assert ask(seen[:1], "a.b.c") == ["10.0.2.2"]


def test_the_first_network_that_knows_a_name_answers() -> None:
    zones = [Zone(), Zone(), Zone()]
    zones[1].add("s", "db", "10.0.2.2")
    zones[2].add("t", "db", "10.0.3.2")
    seen = [Visible(name, zone) for name, zone in zip("abc", zones, strict=True)]
    assert ask(seen, "db") == ["10.0.2.2"]
    assert ask(seen, "db.c") == ["10.0.3.2"]


def test_addresses_take_turns_whatever_else_is_asked(seen: list[Visible]) -> None:
    """A client asks for A and AAAA; counting both would give two tasks the same order for ever."""
    firsts = []
    for _ in range(4):
        answer = ask(seen, "tasks.web")
        assert answer
        firsts.append(answer[0])
        ask(seen, "tasks.web", "AAAA")
        ask(seen, "store")
    assert firsts == ["10.0.1.3", "10.0.1.4", "10.0.1.3", "10.0.1.4"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.1.50", ["db.Apps."]),
        ("10.0.1.51", ["db2.Apps."]),
        ("10.0.1.3", [f"{TASK}.Apps."]),
        ("10.0.1.4", ["tasks.web.Apps."]),
        ("10.0.1.2", ["web.Apps."]),
        ("10.0.1.99", None),
    ],
)
def test_names_of_addresses(seen: list[Visible], address: str, expected: list[str] | None) -> None:
    pointer = ".".join(reversed(address.split("."))) + ".In-Addr.arpa"
    assert ask(seen, pointer, "PTR") == expected
    assert ask(seen, pointer, "A") == (None if expected is None else [])


def test_the_short_id_is_an_addresss_name_only_without_another() -> None:
    zone = Zone()
    zone.add("c0ffee000000ffff", "c0ffee000000", "10.0.1.50")
    assert zone.name_of("10.0.1.50") == "c0ffee000000"
    zone.add("c0ffee000000ffff", "db", "10.0.1.50")
    zone.add("c0ffee000000ffff", "store", "10.0.1.50")
    assert zone.name_of("10.0.1.50") == "db"


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["x" * 60] * 5), ""])
def test_a_name_no_message_can_carry_is_no_answer(name: str) -> None:
    zone = Zone()
    zone.add("s" * 64, name, "10.0.1.50")
    assert ask([Visible("apps", zone)], "50.1.0.10.in-addr.arpa", "PTR") is None


@pytest.mark.parametrize("name", ["in-addr.arpa", "x.in-addr.arpa", "1.2.3.4.5.in-addr.arpa"])
def test_odd_reverse_names_are_not_ours(seen: list[Visible], name: str) -> None:
    assert ask(seen, name, "PTR") is None


def test_a_sandbox_that_goes_takes_its_names_and_leaves_the_others(zone: Zone, seen: list[Visible]) -> None:
    zone.remove("c0ffee000000ffff")
    assert ask(seen, "db") is None
    assert ask(seen, "store") == ["10.0.1.51"]
    assert zone.name_of("10.0.1.50") == ""
    zone.remove("deadbeef0000ffff")
    zone.set_cluster({})
    assert not zone
    assert zone._turns == {}


def test_the_clusters_names_come_before_local_ones(zone: Zone, seen: list[Visible]) -> None:
    zone.add("s", "web", "10.0.1.60")
    assert ask(seen, "web") == ["10.0.1.2"]
    zone.set_cluster({})
    assert ask(seen, "web") == ["10.0.1.60"]


def test_addresses_of_both_families() -> None:
    zone = Zone()
    for address in ("10.0.1.9", "fd00:1::9"):
        zone.add("c0ffee000000ffff", "web", address)
    seen = [Visible("apps", zone)]
    assert ask(seen, "web") == ["10.0.1.9"] and ask(seen, "web", "AAAA") == ["fd00:1::9"]
    assert ask(seen, "web", "ANY") == ["10.0.1.9", "fd00:1::9"] and ask(seen, "web", "MX") == []
    reverse = "9" + ".0" * 23 + ".1.0.0.0.0.0.d.f.ip6.arpa"
    assert ask(seen, reverse, "PTR") == ["web.apps."]
    assert ask(seen, "9.0.ip6.arpa", "PTR") is None and ask(seen, "g." * 32 + "ip6.arpa", "PTR") is None
    zone.remove("c0ffee000000ffff")
    assert not zone and ask(seen, "web", "AAAA") is None
