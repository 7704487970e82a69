from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.comfyui.messages import Message, Preview, parse_message


def test_json() -> None:
    raw = json.dumps({"type": "executing", "data": {"node": "3", "prompt_id": "p"}})
    message = parse_message(raw)
    assert message == Message("executing", {"node": "3", "prompt_id": "p"})
    assert isinstance(message, Message)
    assert message.prompt_id == "p"
    assert Message("status", {}).prompt_id is None


def test_previews() -> None:
    assert parse_message(struct.pack(">II", 1, 1) + b"jpeg") == Preview("image/jpeg", b"jpeg")
    assert parse_message(struct.pack(">II", 1, 2) + b"png") == Preview("image/png", b"png")
    about = json.dumps({"image_type": "image/png", "display_node_id": "3", "prompt_id": "p"}).encode()
    assert parse_message(struct.pack(">II", 4, len(about)) + about + b"png") == Preview("image/png", b"png", "3", "p")


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "[]",
        "{",
        '{"type": 3, "data": {}}',
        '{"type": "x"}',
        '{"type": "x", "data": []}',
        "[" * 100_000,
        b"",
        b"\0\0\0\1",
        struct.pack(">II", 1, 9) + b"an unknown format",
        struct.pack(">II", 3, 1) + b"3text",
        struct.pack(">II", 4, 2) + b"{}",
        struct.pack(">II", 4, 2**31) + b"[]",
        struct.pack(">II", 99, 1),
    ],
)
def test_what_is_of_no_use_is_nothing(raw: str | bytes) -> None:
    assert parse_message(raw) is None


@given(st.text() | st.binary())
def test_nothing_that_a_server_says_raises(raw: str | bytes) -> None:
    parse_message(raw)
