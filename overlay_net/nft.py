"""nftables through libnftables: text in, one transaction each, in any network namespace. Blocks.

Closing a context's socket waits some 16 ms for the kernel when its transaction removed something, so
contexts are closed by a thread of their own: a change costs half a millisecond.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from pathlib import Path

from overlay_net.errors import KernelRefused
from overlay_net.namespaces import inside

_library: ctypes.CDLL | None = None
_loading = threading.Lock()
_used: queue.SimpleQueue[int] = queue.SimpleQueue()


def _load() -> ctypes.CDLL:
    global _library
    with _loading:
        if _library is not None:
            return _library
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise KernelRefused("libnftables.so.1 is missing: install the package libnftables1") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        threading.Thread(target=_close_used, args=(library,), name="nft-closer", daemon=True).start()
        _library = library
        return library


def _close_used(library: ctypes.CDLL) -> None:
    while True:
        library.nft_ctx_free(_used.get())


def apply(text: str, namespace: str | Path | None = None) -> None:
    """All of it or nothing. KernelRefused carries the library's words."""
    _run(text, namespace)


def listing(table: str, namespace: str | Path | None = None) -> str:
    """A table ("ip name") as the library prints it; "" when it is not there."""
    try:
        return _run(f"list table {table}", namespace)
    except KernelRefused as error:
        if "No such file" in str(error):
            return ""
        raise


def _run(text: str, namespace: str | Path | None) -> str:
    library = _load()
    with inside(namespace):
        context = library.nft_ctx_new(0)
        if not context:
            raise KernelRefused("libnftables cannot make a context: is nf_tables in the kernel?")
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            if library.nft_run_cmd_from_buffer(context, text.encode()):
                words = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip()
                raise KernelRefused(f"nftables refused a change: {words or text[:200]}")
            return (library.nft_ctx_get_output_buffer(context) or b"").decode()
        finally:
            _used.put(context)
