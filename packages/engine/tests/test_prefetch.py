from __future__ import annotations

import sys

import pytest

from comfy_cpu_engine import prefetch


def test_what_most_runs_need_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(prefetch, "import_onnx_runtime", lambda: done.append("runtime"))
    prefetch.import_libraries(lambda: False)
    assert done == ["runtime"]
    assert "PIL.Image" in sys.modules


def test_it_stops_when_a_run_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(prefetch, "import_onnx_runtime", lambda: done.append("runtime"))
    answers = iter([False, True])
    prefetch.import_libraries(lambda: next(answers))
    assert done == []


def test_what_cannot_be_imported_is_left_to_the_node_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("not here")

    monkeypatch.setattr(prefetch, "import_onnx_runtime", fail)
    prefetch.import_libraries(lambda: False)
