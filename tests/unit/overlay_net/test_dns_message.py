"""Reading queries that may be anything, and replies that fit."""

from __future__ import annotations

import random
import struct

import dnslib
import pytest

from overlay_net import dns_message
from overlay_net.dns_message import Question


def query(name: str = "web", kind: str = "A", *, edns: int = 0, version: int = 0) -> bytes:
    made = dnslib.DNSRecord.question(name, kind)
    made.header.id = 0x1234
    if edns:
        made.add_ar(dnslib.EDNS0(udp_len=edns, version=version))
    return bytes(made.pack())


def read(data: bytes) -> Question:
    found = dns_message.read(data)
    assert isinstance(found, Question)
    return found


def refusal(data: bytes) -> dnslib.DNSRecord:
    found = dns_message.read(data)
    assert isinstance(found, bytes)
    return dnslib.DNSRecord.parse(found)


def addresses(count: int) -> list[dnslib.RR]:
    return [
        dnslib.RR("web", dnslib.QTYPE.A, rdata=dnslib.A(f"10.0.{n >> 8}.{n & 255}"), ttl=3)
        for n in range(count)
    ]


def with_counts(data: bytes, *, questions: int = 1, additional: int = 0) -> bytes:
    return data[:4] + struct.pack("!HHHH", questions, 0, 0, additional) + data[12:]


def test_a_question_is_read_without_regard_to_case() -> None:
    found = read(query("Web.Apps", "AAAA", edns=4096))
    assert (found.name, found.type, found.udp_bytes, found.edns) == (
        "web.apps",
        dnslib.QTYPE.AAAA,
        4096,
        True,
    )
    assert dnslib.DNSRecord.parse(dns_message.reply(found, ())).q.qname.label == (b"Web", b"Apps")


@pytest.mark.parametrize(("edns", "expected"), [(0, 512), (100, 512), (513, 513)])
def test_a_client_takes_at_least_512_bytes(edns: int, expected: int) -> None:
    assert read(query(edns=edns)).udp_bytes == expected


QUESTION = query()[12:]
LOOP = b"\x01a\xc0\x0c\x00\x01\x00\x01"
FORWARD = b"\xc0\x20" + b"\x00\x01\x00\x01" + bytes(32)


@pytest.mark.parametrize(
    "data",
    [
        with_counts(query(), questions=0),
        with_counts(query() + QUESTION, questions=2),
        query()[:12] + LOOP,
        query()[:12] + FORWARD,
        query()[:12] + b"\xc0\x00\x00\x01\x00\x01",
        query()[:12] + b"\x41" + b"a" * 65 + b"\x00\x00\x01\x00\x01",
        query()[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\x00\x00\x01\x00\x01",
        query()[:-1],
        query()[:12],
        with_counts(query(), additional=1),
        with_counts(query(), additional=65535),
        query() + bytes(5000),
        with_counts(query(edns=512) + query(edns=512)[-11:], additional=2),
    ],
    ids=[
        *("no question", "two questions", "loop", "pointer forwards", "pointer into the header"),
        *("long label", "long name", "cut", "header only", "no record", "no records", "long", "two options"),
    ],
)
def test_what_cannot_be_read_is_a_format_error(data: bytes) -> None:
    refused = refusal(data)
    assert (refused.header.id, refused.header.qr, refused.header.rcode) == (0x1234, 1, dnslib.RCODE.FORMERR)


def test_a_long_chain_of_pointers_is_a_format_error() -> None:
    """A record whose data are pointers, each to the one before, and a record named by the last of them."""
    chain_at = len(query()) + 11
    targets = [len(query()), *(chain_at + 2 * n for n in range(1800))]
    chain = b"".join(struct.pack("!H", 0xC000 | target) for target in targets)
    first = struct.pack("!BHHIH", 0, 4096, 1, 0, len(chain)) + chain
    second = struct.pack("!HHHIH", 0xC000 | (chain_at + 2 * 1800), 4096, 1, 0, 1) + b"x"
    data = with_counts(query() + first + second, additional=2)
    assert len(data) <= dns_message.QUERY_BYTES_MAX
    assert refusal(data).header.rcode == dnslib.RCODE.FORMERR


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_other_operations_are_not_implemented(opcode: int) -> None:
    data = query()[:2] + struct.pack("!H", opcode << 11) + query()[4:]
    refused = refusal(data)
    assert (refused.header.opcode, refused.header.rcode) == (opcode, dnslib.RCODE.NOTIMP)


@pytest.mark.parametrize("kind", ["AXFR", "IXFR"])
def test_zone_transfers_are_not_implemented(kind: str) -> None:
    assert refusal(query(kind=kind)).header.rcode == dnslib.RCODE.NOTIMP


def test_a_later_version_of_edns_is_refused() -> None:
    refused = refusal(query(edns=1232, version=1))
    assert (refused.header.rcode, refused.ar[0].edns_rcode, refused.ar[0].edns_ver) == (0, 1, 0)


@pytest.mark.parametrize("data", [b"", bytes(11), query()[:2] + b"\x80\x00" + query()[4:]])
def test_replies_and_fragments_are_not_answered(data: bytes) -> None:
    assert dns_message.read(data) is None


def test_nothing_that_arrives_raises() -> None:
    """Seeded damage to real queries: some bytes changed, cut or repeated."""
    chance = random.Random(53)
    seeds = [query(), query("a.b.c.example.com", "TXT", edns=1232), query("4.3.2.10.in-addr.arpa", "PTR")]
    outcomes = set()
    for _ in range(4_000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.randrange(len(data)) + 1] * chance.choice((1, 1, 1, 2))
        found = dns_message.read(bytes(data))
        outcomes.add(type(found))
        if isinstance(found, Question):
            assert dns_message.reply(found, addresses(2))
        dns_message.answers(read(query()), 0x1234, bytes(data))
    assert outcomes == {Question, bytes, type(None)}


def test_a_reply_that_fits_is_whole() -> None:
    question = read(query())
    records = addresses(30)
    exact = len(dns_message.reply(question, records))
    data = dns_message.fitted(question, records, exact)
    assert not dns_message.is_truncated(data)
    assert len(dnslib.DNSRecord.parse(data).rr) == 30


def test_a_reply_that_does_not_fit_says_so_and_is_full() -> None:
    question = read(query())
    records = addresses(100)
    data = dns_message.fitted(question, records, 512)
    parsed = dnslib.DNSRecord.parse(data)
    assert dns_message.is_truncated(data)
    assert 512 - 16 < len(data) <= 512
    assert [str(rr.rdata) for rr in parsed.rr] == [str(rr.rdata) for rr in records[: len(parsed.rr)]]


def test_a_reply_carries_the_option_only_when_the_query_did() -> None:
    assert not dnslib.DNSRecord.parse(dns_message.reply(read(query()), ())).ar
    assert dnslib.DNSRecord.parse(dns_message.reply(read(query(edns=800)), ())).ar[0].edns_len == 1232


def test_flags_of_a_reply() -> None:
    header = dnslib.DNSRecord.parse(dns_message.reply(read(query()), addresses(1))).header
    assert (header.id, header.qr, header.aa, header.rd, header.ra, header.rcode) == (0x1234, 1, 1, 1, 1, 0)
    failed = dnslib.DNSRecord.parse(dns_message.failure(read(query()), dnslib.RCODE.SERVFAIL))
    assert (failed.header.aa, failed.header.rcode, str(failed.q.qname)) == (0, dnslib.RCODE.SERVFAIL, "web.")
    assert dns_message.is_truncated(dns_message.truncated(read(query())))


def upstream(name: str = "web", kind: str = "A", **header: int) -> bytes:
    made = dnslib.DNSRecord.question(name, kind).reply()
    made.header.id = 7
    for field, value in header.items():
        setattr(made.header, field, value)
    return bytes(made.pack())


@pytest.mark.parametrize(
    ("data", "belongs"),
    [
        (upstream(), True),
        (upstream("WEB"), True),
        (upstream("web2"), False),
        (upstream(kind="AAAA"), False),
        (upstream(id=8), False),
        (upstream(qr=0), False),
        (upstream(opcode=4), False),
        (upstream()[:14], False),
        (upstream()[:5], False),
        (with_counts(upstream()[:12], questions=0), False),
        (with_counts(upstream(rcode=3)[:12], questions=0), False),
        (with_counts(upstream(rcode=1)[:12], questions=0), True),
        (with_counts(upstream(), questions=2), False),
    ],
)
def test_only_the_reply_to_the_question_is_taken(data: bytes, belongs: bool) -> None:
    assert dns_message.answers(read(query()), 7, data) is belongs


def test_the_id_is_replaced() -> None:
    assert dns_message.with_id(upstream(), 0xABCD) == b"\xab\xcd" + upstream()[2:]
