"""Files from the web for a build: ADD of a URL, and contexts that are one.

Bounded: a limit of silence, one of size, and `stop` is looked at between blocks.
"""

from __future__ import annotations

import email.utils
import http.client
import os
import posixpath
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from engine.completion import to_its_end
from engine.errors import EngineFailure, InvalidParameter

SILENCE_S = 60.0
BYTES_MAX = 64 << 30
_BLOCK_BYTES = 1 << 18
SCHEMES = ("http://", "https://")


def is_url(text: str) -> bool:
    return text.lower().startswith(SCHEMES)


def url_file_name(url: str) -> str:
    """The last part of its path; "" when there is none."""
    return posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))


async def download(url: str, target: Path) -> None:
    """`fetch` in a thread; a cancellation stops it at the next block."""
    stop = threading.Event()
    await to_its_end(lambda: fetch(url, target, stop), stop.set)


def fetch(url: str, target: Path, stop: threading.Event) -> None:
    """The content of `url` as a new file that only root reads, with the server's time when it tells one."""
    request = urllib.request.Request(url, headers={"User-Agent": "swarmctl"})
    try:
        with urllib.request.urlopen(request, timeout=SILENCE_S) as answer, target.open("xb") as out:
            target.chmod(0o600)
            size = 0
            while block := answer.read(_BLOCK_BYTES):
                size += len(block)
                if stop.is_set():
                    raise EngineFailure(f"download of {url} was cancelled")
                if size > BYTES_MAX:
                    raise InvalidParameter(f"{url} is larger than {BYTES_MAX >> 30} GiB: fetch it by hand")
                out.write(block)
            modified = answer.headers.get("Last-Modified", "")
    except urllib.error.HTTPError as error:
        raise InvalidParameter(f"failed to GET {url} with status {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise InvalidParameter(f"failed to GET {url}: {reason}: check the address and the network") from error
    _set_time(target, modified)


def _set_time(target: Path, modified: str) -> None:
    try:
        moment = email.utils.parsedate_to_datetime(modified).timestamp()
    except (ValueError, TypeError):
        moment = 0.0
    os.utime(target, (moment, moment))
