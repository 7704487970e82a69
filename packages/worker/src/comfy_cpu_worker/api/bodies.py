"""Reading a request's body with a limit, and JSON that comes from anywhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from comfy_cpu_worker.errors import JobRejected, JobTooLarge

__all__ = ["parse_json", "read_body", "read_json"]

#: How deep lists and objects may lie in one another. A workflow with subgraphs has some twenty levels.
MAX_DEPTH = 100

#: Larger bodies are parsed in a thread, so that other clients do not wait.
_LARGE = 256 * 1024


async def read_body(request: Request, limit: int) -> bytes:
    """Read a request's body, and stop as soon as it is too large.

    Args:
        limit: bytes.

    Raises:
        JobTooLarge: it is larger.
        JobRejected: the client went away.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise JobRejected("the client went away before it had sent the job") from None
    return bytes(body)


async def read_json(request: Request, limit: int) -> Any:
    """Read a request's body as JSON.

    Raises:
        JobTooLarge, JobRejected: see `read_body` and `parse_json`.
    """
    body = await read_body(request, limit)
    return await asyncio.to_thread(parse_json, body) if len(body) > _LARGE else parse_json(body)


def parse_json(body: bytes) -> Any:
    """Parse JSON that may be anything.

    Raises:
        JobRejected: it is no JSON, not UTF-8, too deep, or has numbers that JSON has not.
    """
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise JobRejected(f"the body is no JSON: {error}", remedy='send {"input": {…}} as JSON in UTF-8') from None
    if _deeper_than(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    while level:
        if depth <= 0:
            return True
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
        depth -= 1
    return False


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_large(limit: int) -> JobTooLarge:
    return JobTooLarge(
        f"the body is larger than {limit / 1e6:g} MB",
        remedy="send smaller pictures, or URLs of them, or start the worker with a higher limit",
    )


def _too_deep() -> JobRejected:
    return JobRejected(f"the JSON is nested deeper than {MAX_DEPTH} levels", remedy="send a job as documented")
