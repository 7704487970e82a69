"""Nodes that free memory or report on it.

Workflows made on a GPU use them between heavy steps. Here they act on main memory, and only `unload_models` drops
models: a model that stays loaded is what makes the next run fast. All of them run every time, because what they do and
say depends on the moment, not on their inputs.
"""

from __future__ import annotations

import gc
from typing import Any

from comfy_cpu_nodes import host

__all__ = ["FreeVram", "FreeVramAutomatic", "FreeVramInline", "VramMonitor", "VramMonitorInline"]

_GIB = 1 << 30

_HIDDEN = {"unique_id": "UNIQUE_ID", "prompt": "PROMPT"}


def _mode() -> tuple[list[str], dict[str, Any]]:
    return ["soft", "aggressive"], {
        "default": "soft",
        "tooltip": "aggressive also collects what Python no longer uses.",
    }


def _unload() -> tuple[str, dict[str, Any]]:
    return "BOOLEAN", {"default": False, "tooltip": "Drop loaded models; the next run loads them again."}


def _details() -> tuple[str, dict[str, Any]]:
    return "BOOLEAN", {"default": True, "tooltip": "Also say how much memory is left and which models are loaded."}


def _free(mode: str, unload_models: bool) -> None:
    from comfy_cpu_nodes.runtimes import release_models

    if mode == "aggressive":
        gc.collect()
    # Without unload_models a loaded model gives back only what it needs while it works.
    release_models(aggressive=unload_models)
    host.free_comfyui_memory(unload_models=unload_models)


def _describe(show_details: bool, label: str = "") -> str:
    lines = [f"{label}Running in CPU mode (no VRAM)"]
    if show_details:
        from comfy_cpu_core.resources import detect
        from comfy_cpu_nodes.runtimes import loaded_models

        resources = detect()
        if resources.memory_available_bytes is not None:
            lines.append(f"  Memory available: {resources.memory_available_bytes / _GIB:.2f} GiB")
        if resources.memory_limit_bytes is not None:
            lines.append(f"  Memory limit: {resources.memory_limit_bytes / _GIB:.2f} GiB")
        loaded = loaded_models()
        lines.append(f"  Loaded models: {len(loaded)} ({sum(model.memory_bytes for model in loaded) / _GIB:.2f} GiB)")
    return "\n".join(lines)


class _AlwaysRun:
    """A node whose result is never taken from the cache."""

    CATEGORY = "utils"

    @classmethod
    def IS_CHANGED(cls, **inputs: Any) -> float:
        """NaN differs from itself, so the node counts as changed every time."""
        return float("nan")


class FreeVram(_AlwaysRun):
    """Frees memory, on its own in a workflow."""

    DESCRIPTION = "Frees memory. Loaded models stay unless unload_models is on."
    FUNCTION = "free_vram"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {},
            "optional": {"mode": _mode(), "unload_models": _unload()},
            "hidden": dict(_HIDDEN),
        }

    def free_vram(self, mode: str = "soft", unload_models: bool = False, **ignored: Any) -> dict[str, Any]:
        """Free memory; inputs that older workflows carry are ignored."""
        _free(mode, unload_models)
        return {}


class FreeVramAutomatic(_AlwaysRun):
    """Frees memory whenever the workflow runs."""

    DESCRIPTION = "Collects unused memory whenever the workflow runs. Loaded models stay."
    FUNCTION = "auto_free_vram"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {},
            "optional": {"trigger": ("BOOLEAN", {"default": True, "tooltip": "Off: do nothing."})},
            "hidden": dict(_HIDDEN),
        }

    def auto_free_vram(self, trigger: bool = True, **ignored: Any) -> dict[str, Any]:
        """Collect unused memory; inputs that older workflows carry are ignored."""
        if trigger:
            _free("aggressive", unload_models=False)
        return {}


class FreeVramInline(_AlwaysRun):
    """Frees memory between two nodes."""

    DESCRIPTION = "Frees memory at this point of the workflow and passes the picture on."
    FUNCTION = "free_vram_inline"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE", {"tooltip": "Passed on as it is."})},
            "optional": {"mode": _mode(), "unload_models": _unload()},
        }

    def free_vram_inline(self, image: Any, mode: str = "soft", unload_models: bool = False) -> tuple[Any]:
        """Free memory and give the picture back."""
        _free(mode, unload_models)
        return (image,)


class VramMonitor(_AlwaysRun):
    """Says how much memory is left."""

    DESCRIPTION = "Reports on memory and loaded models."
    FUNCTION = "monitor_vram"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("vram_info",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}, "optional": {"show_details": _details()}, "hidden": dict(_HIDDEN)}

    def monitor_vram(self, show_details: bool = True, **ignored: Any) -> tuple[str]:
        """Give the report; inputs that older workflows carry are ignored."""
        return (_describe(show_details),)


class VramMonitorInline(_AlwaysRun):
    """Says how much memory is left between two nodes."""

    DESCRIPTION = "Reports on memory and loaded models at this point of the workflow and passes the picture on."
    FUNCTION = "monitor_vram_inline"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "vram_info")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE", {"tooltip": "Passed on as it is."})},
            "optional": {
                "show_details": _details(),
                "prefix": ("STRING", {"default": "", "tooltip": "A label to know this report by."}),
            },
        }

    def monitor_vram_inline(self, image: Any, show_details: bool = True, prefix: str = "") -> tuple[Any, str]:
        """Give the picture back, and the report."""
        return image, _describe(show_details, f"[{prefix}] " if prefix else "")
