"""DNS messages: what came in, what goes out. Pure; the wire format (RFC 1035, EDNS0: RFC 6891) is dnslib's.
Only this module knows that library.

`read` never raises: it gives a question, the refusal to send back, or nothing for what must not be answered.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import dnslib
from dnslib.bimap import BimapError
from dnslib.buffer import BufferError as WireBufferError
from dnslib.label import DNSBuffer, DNSLabelError

Record: TypeAlias = dnslib.RR

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)  # result codes, RFC 1035, 4.1.1
A, PTR, AAAA, ANY = 1, 12, 28, 255  # types of questions
IN, ANY_CLASS = 1, 255
_IXFR, _AXFR = 251, 252

HEADER_BYTES = 12
UDP_BYTES_MIN = 512  # every client takes that much (RFC 1035, 4.2.1)
EDNS_BYTES = 1232  # what we say that we take
QUERY_BYTES_MAX = 4096
MESSAGE_BYTES_MAX = 65535
NAME_BYTES_MAX = 253
LABEL_BYTES_MAX = 63
_RECORDS_MAX = 8  # in a query: an OPT, perhaps a signature
_TRUNCATED = 0x0200
_BADVERS_HIGH = 1  # the upper bits of extended rcode 16
# A long chain of compression pointers ends in a RecursionError; codecs raise ValueError.
_PARSE_ERRORS = (
    dnslib.DNSError,
    WireBufferError,
    BimapError,
    DNSLabelError,
    struct.error,
    ValueError,
    IndexError,
    RecursionError,
)


class _Malformed(Exception):
    """The message is no query that we understand."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query. `name` is lower case without the final dot; `udp_bytes` is the longest UDP reply it takes."""

    data: bytes
    header: dnslib.DNSHeader
    asked: dnslib.DNSQuestion
    name: str
    udp_bytes: int = UDP_BYTES_MIN
    edns: bool = False

    @property
    def type(self) -> int:
        return int(self.asked.qtype)

    @property
    def is_for_internet(self) -> bool:
        return self.asked.qclass in (IN, ANY_CLASS)

    def address(self, address: str, ttl_s: int) -> Record:
        """A record that answers it with an address of either family."""
        kind, data = (AAAA, dnslib.AAAA) if ":" in address else (A, dnslib.A)
        return dnslib.RR(self.asked.qname, kind, rdata=data(address), ttl=ttl_s)

    def pointer(self, name: str, ttl_s: int) -> Record:
        """A record that answers it with a name, which must be `is_sendable`."""
        data = dnslib.PTR(dnslib.DNSLabel(name.encode()))
        return dnslib.RR(self.asked.qname, PTR, rdata=data, ttl=ttl_s)


def read(data: bytes) -> Question | bytes | None:
    """The question, or the refusal's bytes, or None for replies and what is too short to have a header."""
    if len(data) < HEADER_BYTES:
        return None
    buffer = DNSBuffer(data)
    header = dnslib.DNSHeader.parse(buffer)
    if header.qr:
        return None
    if header.opcode != dnslib.OPCODE.QUERY:
        return bytes(_reply(header, (), NOTIMP).pack())
    try:
        asked = _one_question(header, buffer, len(data))
        option = _edns_option(header, buffer)
    except (_Malformed, *_PARSE_ERRORS):
        return bytes(_reply(header, (), FORMERR).pack())
    question = Question(
        data,
        header,
        asked,
        name=str(asked.qname).rstrip(".").lower(),
        udp_bytes=max(option.edns_len, UDP_BYTES_MIN) if option else UDP_BYTES_MIN,
        edns=option is not None,
    )
    if option is not None and option.edns_ver:
        return _packed(question, (), NOERROR, extended=_BADVERS_HIGH)
    if question.type in (_AXFR, _IXFR):
        return failure(question, NOTIMP)
    return question


def is_sendable(name: str) -> bool:
    """Names are whatever users call things; not all of them fit a message."""
    labels = name.encode().split(b".")
    return len(name.encode()) <= NAME_BYTES_MAX and all(0 < len(label) <= LABEL_BYTES_MAX for label in labels)


def failure(question: Question, rcode: int) -> bytes:
    return _packed(question, (), rcode)


def reply(question: Question, records: Sequence[Record]) -> bytes:
    """Our own answer, however long; without records the name exists but has nothing of that type."""
    return _packed(question, records, NOERROR, aa=1)


def fitted(question: Question, records: Sequence[Record], bytes_max: int) -> bytes:
    """Our own answer with as many records as fit, marked as truncated if that is not all of them."""
    whole = reply(question, records)
    if len(whole) <= bytes_max:
        return whole
    few, many = 0, len(records)
    while many - few > 1:
        middle = (few + many) // 2
        if len(reply(question, records[:middle])) <= bytes_max:
            few = middle
        else:
            many = middle
    return _with_truncated_bit(reply(question, records[:few]))


def truncated(question: Question) -> bytes:
    """An empty reply that tells the client to ask again by TCP."""
    return _with_truncated_bit(_packed(question, (), NOERROR))


def is_truncated(data: bytes) -> bool:
    return bool(_flags(data) & _TRUNCATED)


def rcode_of(data: bytes) -> int:
    return _flags(data) & 0xF


def with_id(data: bytes, message_id: int) -> bytes:
    return struct.pack("!H", message_id) + data[2:]


def random_id() -> int:
    return secrets.randbits(16)


def answers(question: Question, message_id: int, data: bytes) -> bool:
    """Is `data` the reply to that question, sent with that id? (RFC 5452, 9.1; never raises)"""
    if len(data) < HEADER_BYTES:
        return False
    buffer = DNSBuffer(data)
    header = dnslib.DNSHeader.parse(buffer)
    if not header.qr or header.id != message_id or header.opcode != dnslib.OPCODE.QUERY:
        return False
    if header.q == 0:
        # Some servers refuse without repeating the question; that can deny an answer but not forge one.
        return header.rcode not in (NOERROR, NXDOMAIN)
    try:
        asked = dnslib.DNSQuestion.parse(buffer)
    except _PARSE_ERRORS:
        return False
    return bool(header.q == 1 and asked == question.asked)


def _one_question(header: dnslib.DNSHeader, buffer: DNSBuffer, length: int) -> dnslib.DNSQuestion:
    if header.q != 1 or length > QUERY_BYTES_MAX:
        raise _Malformed
    asked = dnslib.DNSQuestion.parse(buffer)
    name = asked.qname
    too_long = len(name) > NAME_BYTES_MAX or any(len(label) > LABEL_BYTES_MAX for label in name.label)
    # Nothing stands before the question that a compression pointer could mean.
    compressed = buffer.offset != HEADER_BYTES + len(name) + (2 if name.label else 1) + 4
    if too_long or compressed:
        raise _Malformed
    return asked


def _edns_option(header: dnslib.DNSHeader, buffer: DNSBuffer) -> dnslib.RR | None:
    count = header.a + header.auth + header.ar
    if count > _RECORDS_MAX:
        raise _Malformed
    records = [dnslib.RR.parse(buffer) for _ in range(count)]
    options = [record for record in records[header.a + header.auth :] if record.rtype == dnslib.QTYPE.OPT]
    if len(options) > 1:
        raise _Malformed
    return options[0] if options else None


def _reply(
    header: dnslib.DNSHeader,
    asked: Sequence[dnslib.DNSQuestion],
    rcode: int,
    *,
    aa: int = 0,
) -> dnslib.DNSRecord:
    made = dnslib.DNSHeader(
        id=header.id,
        bitmap=0,
        qr=1,
        opcode=header.opcode,
        aa=aa,
        rd=header.rd,
        ra=1,
        cd=header.cd,
        rcode=rcode,
    )
    return dnslib.DNSRecord(made, questions=list(asked))


def _packed(
    question: Question, records: Sequence[Record], rcode: int, *, aa: int = 0, extended: int = 0
) -> bytes:
    made = _reply(question.header, (question.asked,), rcode, aa=aa)
    made.add_answer(*records)
    if question.edns:
        made.add_ar(dnslib.EDNS0(udp_len=EDNS_BYTES, ext_rcode=extended))
    return bytes(made.pack())


def _with_truncated_bit(data: bytes) -> bytes:
    return data[:2] + struct.pack("!H", _flags(data) | _TRUNCATED) + data[4:]


def _flags(data: bytes) -> int:
    return int(struct.unpack_from("!H", data, 2)[0])
