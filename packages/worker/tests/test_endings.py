from __future__ import annotations

import pytest

from comfy_cpu_worker.endings import judge_ending


@pytest.mark.parametrize(
    ("returncode", "before", "after", "log", "text"),
    [
        (0, 0, 0, [], "ended with exit code 0"),
        (3, 0, 0, ["ValueError: no"], "ended with exit code 3"),
        (-9, 0, 0, [], "was killed by SIGKILL"),
        (-9, 4, 5, [], "ran out of memory and was killed by SIGKILL"),
        (-9, None, None, [], "was killed by SIGKILL"),
        (-11, 0, 1, [], "was killed by SIGSEGV"),
        (
            -6,
            0,
            0,
            ["terminate called after throwing an instance of 'std::bad_alloc'"],
            "ran out of memory and was killed by SIGABRT",
        ),
        (-6, 0, 0, ["free(): invalid pointer"], "was killed by SIGABRT"),
        (1, 0, 0, ["Traceback …", "MemoryError"], "ran out of memory and ended with exit code 1"),
        (1, 0, 0, ["MemoryError", *"12345"], "ended with exit code 1"),
        (0, 0, 0, ["MemoryError"], "ended with exit code 0"),
        (-40, 0, 0, [], "was killed by signal 40"),
    ],
)
def test_endings(returncode: int, before: int | None, after: int | None, log: list[str], text: str) -> None:
    ending = judge_ending(returncode, before, after, log)
    assert str(ending) == text
    assert ending.out_of_memory is text.startswith("ran out of memory")
