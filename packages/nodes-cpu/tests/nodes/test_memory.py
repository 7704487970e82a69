from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from comfy_cpu_nodes import host
from comfy_cpu_nodes.nodes import memory as nodes

IMAGE = np.zeros((1, 2, 2, 3), np.float32)


@dataclass
class Loaded:
    """As `comfy_cpu_nodes.runtimes.LoadedModel`."""

    memory_bytes: int


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: calls.append("collect"))
    return calls


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    calls: list[bool] = []
    monkeypatch.setattr(host, "free_comfyui_memory", lambda *, unload_models: calls.append(unload_models))
    return calls


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize(
    ("mode", "unload", "collections"),
    [("soft", False, 0), ("aggressive", False, 1), ("soft", True, 0), ("aggressive", True, 1)],
)
def test_only_unload_models_drops_models(
    inline: bool,
    mode: str,
    unload: bool,
    collections: int,
    runtimes: Any,
    collected: list[str],
    told: list[bool],
) -> None:
    if inline:
        assert nodes.FreeVramInline().free_vram_inline(IMAGE, mode, unload)[0] is IMAGE
    else:
        assert nodes.FreeVram().free_vram(mode, unload, unique_id="3", prompt={}, anything="else") == {}
    assert runtimes.releases == [unload]
    assert len(collected) == collections
    assert told == [unload]


@pytest.mark.parametrize(("trigger", "collections"), [(True, 1), (False, 0)])
def test_automatic(trigger: bool, collections: int, runtimes: Any, collected: list[str]) -> None:
    assert nodes.FreeVramAutomatic().auto_free_vram(trigger, prompt={}, anything="else") == {}
    assert len(collected) == collections
    assert runtimes.releases == [False] * collections


def test_monitor(runtimes: Any) -> None:
    runtimes.loaded += [Loaded(1 << 30), Loaded(1 << 29)]
    (text,) = nodes.VramMonitor().monitor_vram(anything="else")
    first, *details = text.splitlines()
    assert first == "Running in CPU mode (no VRAM)"
    assert any(line.startswith("  Memory available: ") and line.endswith(" GiB") for line in details)
    assert details[-1] == "  Loaded models: 2 (1.50 GiB)"
    assert nodes.VramMonitor().monitor_vram(show_details=False) == (first,)


@pytest.mark.parametrize(("prefix", "label"), [("", ""), ("after BEN2", "[after BEN2] ")])
def test_monitor_inline(prefix: str, label: str) -> None:
    image, text = nodes.VramMonitorInline().monitor_vram_inline(IMAGE, False, prefix)
    assert image is IMAGE
    assert text == f"{label}Running in CPU mode (no VRAM)"
