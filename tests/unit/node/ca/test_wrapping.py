"""The unlock key as text, and what a wrapped key refuses."""

from __future__ import annotations

import re
import zlib

import pytest

from node.ca import wrapping
from node.ca.wrapping import Damaged, InvalidUnlockKey, WrongKey

KEY = bytes(range(32))
WRAPPED = wrapping.wrap(b"content", KEY, "node.key")


def test_unlock_key_has_dockers_form_and_round_trips() -> None:
    text = wrapping.new_unlock_key()
    assert re.fullmatch(r"SWMKEY-1-[A-Za-z0-9+/]{43}", text)
    assert len(wrapping.parse_unlock_key(f" {text}\n")) == 32
    assert wrapping.new_unlock_key() != text
    # The example of the Engine API's documentation.
    assert len(wrapping.parse_unlock_key("SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8")) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SWMKEY-1-",
        "7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8",
        "SWMKEY-2-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8",
        "SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu",
        "SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8A",
        "SWMKEY-1-7c37Cc8654o6p38Hnroyw_i19pllOnGtbdZEgtKxZu8",
        "SWMKEY-1-7c37Cc8654o6p38Hnroywöi19pllOnGtbdZEgtKxZu8",
    ],
)
def test_what_is_no_unlock_key_is_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidUnlockKey, match=r"^invalid key string$"):
        wrapping.parse_unlock_key(text)


def test_content_comes_back_and_is_not_to_be_seen() -> None:
    assert wrapping.unwrap(WRAPPED, KEY, "node.key") == b"content"
    assert wrapping.is_wrapped(WRAPPED) and not wrapping.is_wrapped(b"content")
    assert b"content" not in WRAPPED
    assert wrapping.wrap(b"content", KEY, "node.key") != WRAPPED


def test_another_key_and_another_purpose_do_not_open_it() -> None:
    with pytest.raises(WrongKey):
        wrapping.unwrap(WRAPPED, bytes(32), "node.key")
    with pytest.raises(WrongKey):
        wrapping.unwrap(WRAPPED, KEY, "raft.key")


def test_every_flipped_byte_and_every_cut_is_damage() -> None:
    for position in range(len(WRAPPED)):
        flipped = bytearray(WRAPPED)
        flipped[position] ^= 0x40
        with pytest.raises(Damaged):
            wrapping.unwrap(bytes(flipped), KEY, "node.key")
        with pytest.raises(Damaged):
            wrapping.unwrap(WRAPPED[:position], KEY, "node.key")


def test_a_forged_header_is_not_accepted() -> None:
    """Whoever can write the file can make its checksum right, not its tag."""
    forged = bytearray(WRAPPED[:-4])
    forged[40] ^= 1
    with pytest.raises(WrongKey):
        wrapping.unwrap(bytes(forged) + zlib.crc32(forged).to_bytes(4, "big"), KEY, "node.key")


def test_format_of_another_version_is_named() -> None:
    later = bytearray(WRAPPED[:-4])
    later[len(b"swarmctl wrapped key\n")] = 7
    with pytest.raises(Damaged, match="format version 7, this program reads 1"):
        wrapping.unwrap(bytes(later) + zlib.crc32(later).to_bytes(4, "big"), KEY, "node.key")
