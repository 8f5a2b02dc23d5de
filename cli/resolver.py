"""Names of networks, secrets and configs to ids, by asking the daemon."""

from __future__ import annotations

from cli.client import Client
from cli.errors import ApiError, CliError
from cli.urls import quote


class ApiResolver:
    """`scope`: only networks of that scope are found; empty for any."""

    def __init__(self, client: Client, scope: str = "") -> None:
        self._client = client
        self._query = {"scope": scope} if scope else {}

    def network(self, name: str) -> str:
        return str(self._client.get(f"/networks/{quote(name)}", self._query)["Id"])

    def secret(self, name: str) -> str:
        return self._id("secret", name)

    def config(self, name: str) -> str:
        return self._id("config", name)

    def _id(self, kind: str, name: str) -> str:
        try:
            return str(self._client.get(f"/{kind}s/{quote(name)}")["ID"])
        except ApiError as error:
            if error.status != 404:
                raise
            raise CliError(
                f"{kind} not found: {name}", hint=f"swarmctl {kind} ls shows what there is"
            ) from error
