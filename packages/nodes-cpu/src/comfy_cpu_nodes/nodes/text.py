"""Nodes that show text."""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = ["ShowText"]


class ShowText:
    """``ShowText|pysssss``: shows a text as an output of the workflow, and passes it on."""

    CATEGORY = "utils"
    DESCRIPTION = "Show a text, and pass it on."
    FUNCTION = "notify"
    INPUT_IS_LIST = True
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    OUTPUT_IS_LIST: ClassVar[tuple[bool, ...]] = (True,)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The contract's inputs."""
        return {
            "required": {"text": ("STRING", {"forceInput": True, "tooltip": "The text to show."})},
            "hidden": {"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def notify(self, text: list[Any], unique_id: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Show every text of the list."""
        return {"ui": {"text": text}, "result": (text,)}
