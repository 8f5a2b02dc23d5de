"""Fixtures of all tests with clients that nobody here wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import installed_client, packaged_client


@pytest.fixture(scope="module", params=["installed", "packaged"])
def client(request: pytest.FixtureRequest) -> Path:
    """The docker that is installed, and the distribution's; where only that can be had, it has to do for both."""
    return installed_client() if request.param == "installed" else packaged_client()
