"""What a ComfyUI says on its websocket. Pure: bytes in, messages out."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FEATURE_FLAGS", "Message", "Preview", "parse_message"]

#: Sent once after the websocket is open: previews then say which node they are of.
FEATURE_FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})

# Types of binary messages, and the picture formats that the older of them names by a number.
_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4
_FORMATS = {1: "image/jpeg", 2: "image/png"}


@dataclass(frozen=True)
class Message:
    """A JSON message.

    Attributes:
        type: ``executing``, ``progress``, ``execution_error``, …; new versions bring new ones.
        data: what it says.
    """

    type: str
    data: Mapping[str, Any]

    @property
    def prompt_id(self) -> str | None:
        """The prompt that it is about; None where it does not say."""
        prompt_id = self.data.get("prompt_id")
        return prompt_id if isinstance(prompt_id, str) else None


@dataclass(frozen=True)
class Preview:
    """A picture of what a sampler has so far.

    Attributes:
        media_type: for example ``image/jpeg``.
        data: the picture's bytes.
        node_id, prompt_id: what it is of; None where the server is too old to say.
    """

    media_type: str
    data: bytes = field(repr=False)
    node_id: str | None = None
    prompt_id: str | None = None


def parse_message(raw: str | bytes) -> Message | Preview | None:
    """Read a message; None for one that is of no use here, whatever it is: none of them can end a run."""
    return _parse_binary(raw) if isinstance(raw, bytes) else _parse_text(raw)


def _parse_text(raw: str) -> Message | None:
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    kind, data = told.get("type"), told.get("data")
    return Message(kind, data) if isinstance(kind, str) and isinstance(data, dict) else None


def _parse_binary(raw: bytes) -> Preview | None:
    try:
        kind, number = struct.unpack_from(">II", raw)
        if kind == _PREVIEW:
            return Preview(_FORMATS[number], raw[8:])
        if kind != _PREVIEW_WITH_METADATA:
            return None
        about = json.loads(raw[8 : 8 + number])
        return Preview(
            str(about["image_type"]), raw[8 + number :], about.get("display_node_id"), about.get("prompt_id")
        )
    except (struct.error, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return None
