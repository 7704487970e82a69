"""What the contract tests share: a local Hub, and a command line that is set up for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from hub_server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A local Hub, and a huggingface_hub that reads nothing of the user's and asks no other Hub."""
    from huggingface_hub import close_session, constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 5)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 5)
    with HubServer() as server:
        yield server
    close_session()


@pytest.fixture
def comfy_cpu(tmp_path: Path, hub: HubServer) -> CommandLine:
    """``comfy-cpu`` with HF_ENDPOINT at the local Hub."""
    return CommandLine(tmp_path / "command-line", {"HF_ENDPOINT": hub.url, "NO_PROXY": "*"})
