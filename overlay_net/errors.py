"""Errors of the data plane.

NetworkError
├── NetworkNotFound   no network or sandbox with that id or name
├── NetworkInUse      it still has endpoints
├── AddressInUse      the address asked for is taken, or no address is left
├── PortInUse         a host port is taken
├── SubnetOverlap     a subnet overlaps with another network or a route of the host
├── InvalidNetwork    the request is wrong; the message names the field
└── KernelRefused     the kernel or a library refused; the message says what and why
"""

from __future__ import annotations


class NetworkError(Exception):
    """Base. Lower case, names the object and the value, says what to do."""


class NetworkNotFound(NetworkError):
    pass


class NetworkInUse(NetworkError):
    pass


class AddressInUse(NetworkError):
    pass


class PortInUse(NetworkError):
    pass


class SubnetOverlap(NetworkError):
    pass


class InvalidNetwork(NetworkError):
    pass


class KernelRefused(NetworkError):
    """`code`: the errno number, 0 when there is none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
