from __future__ import annotations

import pytest

from comfy_cpu_core.errors import HubError
from comfy_cpu_core.fetchers.hub import HubFetcher


@pytest.mark.parametrize("version", ["0.23.0", "0.36.2", "1.0.0rc1"])
def test_a_library_that_is_too_old_is_said_so(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.__version__", version)
    with pytest.raises(HubError, match=f"huggingface_hub {version} is too old") as caught:
        HubFetcher()
    assert "--models DIR" in (caught.value.remedy or "")


@pytest.mark.parametrize("version", ["1.0.0", "2.4.0"])
def test_newer_ones_are_taken(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.__version__", version)
    assert HubFetcher(endpoint="http://127.0.0.1:9")
