"""The run that a node belongs to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from comfy_cpu_core.context import Folders, RunContext, current_run, use_run
from comfy_cpu_core.errors import Interrupted
from comfy_cpu_core.results import Progress
from comfy_cpu_core.tree import ModelTree


def context() -> RunContext:
    here = Path()
    return RunContext(Folders(here, here, here), ModelTree(here))


def test_there_is_a_run_only_inside_one() -> None:
    outer, inner = context(), context()
    assert current_run() is None
    with use_run(outer) as given:
        assert given is current_run() is outer
        with use_run(inner):
            assert current_run() is inner
        assert current_run() is outer
    assert current_run() is None


def test_a_run_ends_with_an_error_too() -> None:
    with pytest.raises(Interrupted), use_run(context()):
        raise Interrupted("stop")
    assert current_run() is None


def test_another_thread_is_another_run() -> None:
    seen: list[RunContext | None] = []
    with use_run(context()):
        thread = threading.Thread(target=lambda: seen.append(current_run()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_a_warning_is_told_once() -> None:
    events: list[Progress] = []
    run = context()
    run.emit = events.append
    run.node_id, run.class_type = "4", "A"
    run.warn("careful")
    run.warn("careful")
    run.warn("hot")
    assert run.warnings == ["careful", "hot"]
    assert events == [Progress("notice", "4", "A", message=text) for text in ("careful", "hot")]


def test_what_a_context_does_if_nobody_says_otherwise() -> None:
    run = context()
    run.check()
    run.emit(Progress("started"))
    assert (run.model_uses, run.warnings) == ([], [])
    assert context().warnings is not run.warnings
