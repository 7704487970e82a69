from __future__ import annotations

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_worker.frames import MAGIC, Decoder, FrameError, FrameLimits, Message, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
MESSAGES = st.builds(
    Message,
    st.text(max_size=5),
    st.dictionaries(st.text(max_size=3), JSON, max_size=3),
    st.lists(st.binary(max_size=20), max_size=3).map(tuple),
)
SMALL = FrameLimits(header_bytes=100, blobs=2, blob_bytes=50)


def decode(decoder: Decoder, data: bytes) -> list[Message]:
    decoder.receive(data)
    messages = []
    while (message := decoder.next_message()) is not None:
        messages.append(message)
    return messages


def header(text: bytes) -> bytes:
    return struct.pack("!4sI", MAGIC, len(text)) + text


@given(st.lists(MESSAGES, max_size=4), st.data())
def test_however_a_stream_is_cut_the_messages_are_the_same(messages: list[Message], data: st.DataObject) -> None:
    stream = b"".join(part for message in messages for part in encode(message))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder()
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decode(decoder, stream[begin:end])
    assert found == messages
    assert not decoder.in_the_middle


@given(MESSAGES, st.data())
def test_half_a_message_is_none(message: Message, data: st.DataObject) -> None:
    stream = b"".join(encode(message))
    cut = data.draw(st.integers(1, len(stream) - 1))
    decoder = Decoder()
    assert decode(decoder, stream[:cut]) == []
    assert decoder.in_the_middle


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_garbage_is_an_error_of_this_module_or_waits_for_more(chunks: list[bytes]) -> None:
    decoder = Decoder(SMALL)
    with contextlib.suppress(FrameError):
        for chunk in chunks:
            decode(decoder, chunk)


@given(JSON)
def test_a_header_of_any_json_is_a_message_or_an_error_of_this_module(document: object) -> None:
    with contextlib.suppress(FrameError):
        decode(Decoder(SMALL), header(json.dumps(document).encode()))


def test_messages_before_the_garbage_are_given() -> None:
    decoder = Decoder()
    decoder.receive(b"".join(encode(Message("a"))) + b"Traceback")
    assert decoder.next_message() == Message("a")
    with pytest.raises(FrameError, match="b'Trac' where a message should begin"):
        decoder.next_message()


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"x", "where a message should begin"),
        (b"CCx", "where a message should begin"),
        (header(b"x" * 101), "a header of 101 bytes is announced; 100 are allowed"),
        (header(b"\xff"), "not JSON"),
        (header(b"[" * 100), "not JSON"),
        (header(b"[]"), "not of the form"),
        (header(b'{"kind": 1, "body": {}, "blobs": []}'), "not of the form"),
        (header(b'{"kind": "a", "body": [], "blobs": []}'), "not of the form"),
        (header(b'{"kind": "a", "body": {}, "blobs": [true]}'), "not of the form"),
        (header(b'{"kind": "a", "body": {}, "blobs": [-1]}'), "not of the form"),
        (header(b'{"kind": "a", "body": {}, "blobs": [0, 0, 0]}'), "3 blobs; 2 are allowed"),
        (header(b'{"kind": "a", "body": {}, "blobs": [25, 26]}'), "51 bytes; 50 are allowed"),
    ],
)
def test_what_is_no_message(stream: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        decode(Decoder(SMALL), stream)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (Message("a", {"x": object()}), "not JSON"),
        (Message("a", {"x": "y" * 100}), "header of"),
        (Message("a", {}, (b"", b"", b"")), "3 blobs"),
        (Message("a", {}, (b"x" * 51,)), "51 bytes"),
    ],
)
def test_what_may_not_be_sent(message: Message, problem: str) -> None:
    with pytest.raises(FrameError, match=problem):
        encode(message, SMALL)


def test_blobs_are_not_copied_when_they_are_sent() -> None:
    blob = b"x" * 1000
    assert encode(Message("a", {}, (blob,)))[1] is blob
