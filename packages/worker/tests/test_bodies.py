from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from comfy_cpu_worker.api.bodies import MAX_DEPTH, parse_json, read_json
from comfy_cpu_worker.errors import JobRejected, JobTooLarge


def read(*chunks: bytes, limit: int = 100, length: str | None = None, gone: bool = False) -> tuple[Any, int]:
    """Read a body that arrives in chunks; what was read, and how many of the chunks were taken."""
    left = list(chunks)

    async def receive() -> Any:
        if not left and gone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or gone}

    headers = [] if length is None else [(b"content-length", length.encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    try:
        return asyncio.run(read_json(request, limit)), len(chunks) - len(left)
    except JobTooLarge as error:
        return error, len(chunks) - len(left)


def test_a_body_in_chunks() -> None:
    assert read(b'{"a":', b"1}") == ({"a": 1}, 2)


def test_a_body_that_is_too_large_is_not_read_on() -> None:
    error, taken = read(b'"' + b"x" * 60, b"x" * 60, b"x" * 60)
    assert isinstance(error, JobTooLarge)
    assert taken == 2


def test_a_body_that_says_it_is_too_large_is_not_read_at_all() -> None:
    error, taken = read(b"1", length="101")
    assert isinstance(error, JobTooLarge)
    assert taken == 0
    assert read(b"1", length="9" * 5000)[1] == 0
    assert read(b"1", length="nonsense") == (1, 1)


def test_a_large_body_is_parsed_all_the_same() -> None:
    assert read(b'"' + b"x" * 300_000 + b'"', limit=10**6)[0] == "x" * 300_000


def test_a_client_that_goes_away_in_the_middle() -> None:
    with pytest.raises(JobRejected, match="went away"):
        read(b'{"a":', gone=True)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"\xff\xfe", b'{"a": NaN}', b"[Infinity]", b"[-Infinity]", b"1" * 5000, b'{"a":1}}', b"\x00",
     b'"\x01"', b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500],
)  # fmt: skip
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(JobRejected):
        parse_json(body)


def test_depth() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    parse_json(deep)
    with pytest.raises(JobRejected, match="deeper than 100 levels"):
        parse_json(b'{"a":' + deep + b"}")
