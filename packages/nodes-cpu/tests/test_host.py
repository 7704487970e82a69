"""Who runs us: our engine, a ComfyUI, nobody."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.errors import DeadlineExceeded, Interrupted
from comfy_cpu_core.results import ModelUse, Progress
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes import host


class Stop(Exception):
    """As ComfyUI's InterruptProcessingException."""


class Bar:
    """As ComfyUI's ProgressBar."""

    made: list[Bar]

    def __init__(self, total: int) -> None:
        self.total, self.values = total, []
        type(self).made.append(self)

    def update_absolute(self, value: int, total: int) -> None:
        self.values.append((value, total))


@pytest.fixture
def comfyui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The modules that a ComfyUI has loaded, as far as we use them."""
    root = tmp_path / "ComfyUI"
    calls: list[str] = []
    management = SimpleNamespace(
        InterruptProcessingException=Stop,
        interrupted=False,
        unload_all_models=lambda: calls.append("unload"),
        soft_empty_cache=lambda: calls.append("empty"),
    )

    def throw() -> None:
        if management.interrupted:
            raise Stop

    management.throw_exception_if_processing_interrupted = throw
    Bar.made = []
    paths = SimpleNamespace(
        folder_names_and_paths={},
        models_dir=str(root / "models"),
        get_output_directory=lambda: str(root / "output"),
        get_temp_directory=lambda: str(root / "temp"),
        get_input_directory=lambda: str(root / "input"),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    monkeypatch.setitem(sys.modules, "comfy.utils", SimpleNamespace(ProgressBar=Bar))
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    return SimpleNamespace(root=root, management=management, paths=paths, calls=calls)


@pytest.fixture
def events() -> list[Progress]:
    return []


@pytest.fixture
def run(tmp_path: Path, events: list[Progress]) -> Iterator[RunContext]:
    folders = Folders(tmp_path / "in", tmp_path / "out", tmp_path / "tmp")
    tree = ModelTree(tmp_path / "tree")
    with use_run(RunContext(folders, tree, events.append, node_id="7", class_type="Tested")) as context:
        yield context


def places() -> list[Path]:
    return [host.input_directory(), host.output_directory(), host.temp_directory(), host.models().root]


def test_places_in_our_engine_even_inside_a_comfyui(comfyui: Any, run: RunContext, tmp_path: Path) -> None:
    assert places() == [tmp_path / "in", tmp_path / "out", tmp_path / "tmp", tmp_path / "tree"]


def test_places_in_a_comfyui(comfyui: Any) -> None:
    root = comfyui.root
    assert places() == [root / "input", root / "output", root / "temp", root / "models"]


def test_model_folders_that_comfyui_has_elsewhere(comfyui: Any, tmp_path: Path) -> None:
    default = str(comfyui.root / "models" / "llm")
    comfyui.paths.folder_names_and_paths |= {"llm": ([str(tmp_path / "disk"), default], set()), "vae": ([], set())}
    tree = host.models()
    assert tree.places("llm") == (tmp_path / "disk", Path(default))
    assert tree.places("ben2_onnx") == (comfyui.root / "models" / "ben2_onnx",)
    assert [name for name, _ in tree.elsewhere] == ["llm"], "only folders that our nodes read from"


def test_places_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFY_CPU_MODELS", str(tmp_path / "mine"))
    scratch = Path(tempfile.gettempdir()) / "comfy-cpu"
    assert places() == [tmp_path / "input", tmp_path / "output", scratch, tmp_path / "mine"]


def test_what_to_do_about_a_missing_model(run: RunContext, tmp_path: Path) -> None:
    assert host.fetch_hint("ben2-base") == f"fetch it with `comfy-cpu models fetch ben2-base --models {tmp_path}/tree`"


def test_steps_and_interrupts_in_our_engine(comfyui: Any, run: RunContext, events: list[Progress]) -> None:
    comfyui.management.interrupted = True  # not ours
    steps = host.progress(3)
    steps.step()
    steps.step()
    assert events == [Progress("step", "7", "Tested", value=value, total=3) for value in (1, 2)]
    assert Bar.made == []

    def stop() -> None:
        raise Interrupted("stopped")

    run.check = stop
    with pytest.raises(Interrupted):
        steps.step()
    with pytest.raises(Interrupted):
        host.check_interrupt()


def test_steps_and_interrupts_in_a_comfyui(comfyui: Any) -> None:
    steps = host.progress(2)
    steps.step()
    (bar,) = Bar.made
    assert (bar.total, bar.values) == (2, [(1, 2)])
    comfyui.management.interrupted = True
    with pytest.raises(Stop):
        steps.step()
    with pytest.raises(Stop):
        host.check_interrupt()


def test_work_that_outlives_its_run_asks_somebody_else(comfyui: Any, run: RunContext) -> None:
    def stop() -> None:
        raise Stop

    run.check = stop
    comfyui.management.interrupted = True
    asked: list[int] = []
    with host.checked_by(lambda: asked.append(1)):
        host.check_interrupt()
    assert asked == [1]
    with pytest.raises(Stop):
        host.check_interrupt()


def test_what_an_interrupt_raises(comfyui: Any) -> None:
    assert host.interruptions() == (Interrupted, DeadlineExceeded, Stop)


def test_what_an_interrupt_raises_without_a_comfyui() -> None:
    assert host.interruptions() == (Interrupted, DeadlineExceeded)


def test_steps_elsewhere_do_nothing() -> None:
    host.progress(1).step()
    host.check_interrupt()


def test_warnings(run: RunContext, events: list[Progress], caplog: pytest.LogCaptureFixture) -> None:
    host.warn("mind the gap")
    host.warn("mind the gap")
    assert run.warnings == ["mind the gap"]
    assert [event.message for event in events] == ["mind the gap"]
    assert caplog.records == []


def test_warnings_elsewhere_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    host.warn("mind the gap")
    assert caplog.record_tuples == [("comfy_cpu", logging.WARNING, "mind the gap")]


REAL = ModelUse("a.onnx", "openvino", "bf16", 2)
STAND_IN = ModelUse("b.onnx", "openvino", "f32", 2, stand_in=True)


def test_a_run_notes_each_model_once(run: RunContext) -> None:
    for use in (REAL, STAND_IN, REAL):
        host.model_used(use, "it only looks like it")
    assert run.model_uses == [REAL, STAND_IN]
    assert run.warnings == ["b.onnx is a STAND-IN: it only looks like it"]


def test_a_stand_in_is_said_loudly_in_a_comfyui_too(comfyui: Any, caplog: pytest.LogCaptureFixture) -> None:
    host.model_used(REAL, "it only looks like it")
    host.model_used(STAND_IN, "it only looks like it")
    assert caplog.messages == ["b.onnx is a STAND-IN: it only looks like it"]


def test_an_error_knows_its_node(run: RunContext) -> None:
    error = host.node_error("broken", remedy="mend it")
    assert (str(error), error.node_id, error.class_type, error.remedy) == ("broken", "7", "Tested", "mend it")


def test_an_error_elsewhere_knows_none() -> None:
    assert host.node_error("broken").node_id is None


@pytest.mark.parametrize(("unload", "calls"), [(False, ["empty"]), (True, ["unload", "empty"])])
def test_freeing_memory_in_a_comfyui(unload: bool, calls: list[str], comfyui: Any) -> None:
    host.free_comfyui_memory(unload_models=unload)
    assert comfyui.calls == calls


def test_freeing_memory_in_our_engine_leaves_comfyui_alone(comfyui: Any, run: RunContext) -> None:
    host.free_comfyui_memory(unload_models=True)
    assert comfyui.calls == []


def test_freeing_memory_elsewhere() -> None:
    host.free_comfyui_memory(unload_models=True)
