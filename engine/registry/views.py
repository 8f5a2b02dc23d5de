"""Registries as `GET /info` shows them. Pure."""

from __future__ import annotations

from typing import Any

from engine.images.reference import DEFAULT_DOMAIN
from engine.registry.endpoints import LOOPBACK
from engine.registry.settings import RegistrySettings


def registry_config(settings: RegistrySettings) -> dict[str, Any]:
    """Source: Docker Engine API, schema RegistryServiceConfig."""
    networks = [entry for entry in settings.insecure_registries if "/" in entry]
    hosts = [entry for entry in settings.insecure_registries if "/" not in entry]
    mirrors = list(settings.mirrors)
    shown = {DEFAULT_DOMAIN: _index(DEFAULT_DOMAIN, mirrors, secure=True)}
    shown |= {host: _index(host, [], secure=False) for host in hosts}
    return {"IndexConfigs": shown, "InsecureRegistryCIDRs": [*LOOPBACK, *networks], "Mirrors": mirrors}


def _index(name: str, mirrors: list[str], *, secure: bool) -> dict[str, Any]:
    return {"Name": name, "Mirrors": mirrors, "Secure": secure, "Official": name == DEFAULT_DOMAIN}
