"""Whole runs: request in, result out, nothing left behind."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pluggy
import pytest
from PIL import Image

from comfy_cpu_core import hookspecs
from comfy_cpu_core.context import current_run
from comfy_cpu_core.errors import InputError, ModelMissing, WorkflowInvalid
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.models import ModelFile, ModelNeed, ModelSpec
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.results import Progress
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_engine.engine import Engine
from comfy_cpu_engine.nodes import NODE_CLASSES

Toy = Callable[..., NodeClass]
Node = Callable[..., dict[str, Any]]
MakeEngine = Callable[..., Engine]


@pytest.fixture
def prompt(node: Node) -> dict[str, Any]:
    return {
        "1": node("LoadImage", image="a.png"),
        "2": node("ImageScale", image=["1", 0], upscale_method="bilinear", width=8, height=0, crop="disabled"),
        "3": node("SaveImage", images=["2", 0], filename_prefix="sub/out"),
        "4": node("PreviewImage", images=["1", 0]),
    }


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_picture_goes_in_and_pictures_come_out(
    engine: Engine, prompt: dict[str, Any], png: bytes, workdir: Path
) -> None:
    result = engine.run(prompt, files={"a.png": png})
    assert result.status == "completed"
    saved, preview = result.images
    assert (saved.node_id, saved.class_type, saved.folder, saved.subfolder) == ("3", "SaveImage", "output", "sub")
    assert (saved.filename, saved.media_type) == ("out_00001_.png", "image/png")
    assert decoded(saved.data).size == (8, 6)
    assert (preview.node_id, preview.folder, preview.subfolder) == ("4", "temp", "")
    assert preview.filename.startswith("ComfyUI_temp_")
    assert np.array_equal(np.asarray(decoded(preview.data)), np.asarray(decoded(png)))
    assert list(workdir.iterdir()) == []


def test_two_outputs_with_one_prefix_get_two_names(engine: Engine, node: Node) -> None:
    prompt = {
        "1": node("EmptyImage", width=2, height=2, batch_size=2, color=0),
        "2": node("SaveImage", images=["1", 0], filename_prefix="x"),
        "3": node("SaveImage", images=["1", 0], filename_prefix="x"),
    }
    result = engine.run(prompt)
    assert [output.filename for output in result.outputs] == [f"x_{n:05}_.png" for n in (1, 2, 3, 4)]


def test_the_request_s_files_are_all_there_is(engine: Engine, prompt: dict[str, Any], png: bytes) -> None:
    with pytest.raises(WorkflowInvalid, match=r"'a\.png' is not among the input files \(b\.png, sub/c\.png\)") as error:
        engine.run(prompt, files={"b.png": png, "sub/c.png": png})
    assert error.value.remedy == "give the file with --input 1.image=FILE"
    with pytest.raises(WorkflowInvalid, match="there are none"):
        engine.run(prompt)


def test_files_in_subfolders(engine: Engine, prompt: dict[str, Any], png: bytes) -> None:
    prompt["1"]["inputs"]["image"] = "sub/a.png [input]"
    assert engine.run(prompt, files={"sub/a.png": png}).ok


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "a\0.png", "..\\a.png", "CON"])
def test_bad_names_of_files(name: str, engine: Engine, prompt: dict[str, Any], png: bytes, workdir: Path) -> None:
    with pytest.raises(InputError, match="the name of the input file"):
        engine.run(prompt, files={name: png})
    prompt["1"]["inputs"]["image"] = name
    with pytest.raises(WorkflowInvalid, match=r"^node 1 \(LoadImage\): input 'image'"):
        engine.run(prompt)
    assert list(workdir.iterdir()) == []


@pytest.mark.parametrize("prefix", ["../x", "/tmp/x", "a/../../x", "..\\x"])
def test_prefixes_that_lead_out(prefix: str, engine: Engine, prompt: dict[str, Any], png: bytes) -> None:
    prompt["3"]["inputs"]["filename_prefix"] = prefix
    with pytest.raises(WorkflowInvalid, match=r"^node 3 \(SaveImage\): input 'filename_prefix'"):
        engine.run(prompt, files={"a.png": png})


@pytest.mark.parametrize("data", [b"", b"notes", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_a_file_that_is_no_image(data: bytes, engine: Engine, prompt: dict[str, Any]) -> None:
    result = engine.run(prompt, files={"a.png": data})
    assert result.status == "failed"
    (failure,) = result.errors
    assert (failure.code, failure.node_id) == ("input", "1")
    assert "'a.png'" in failure.message


def test_no_metadata_unless_asked_for(engine: Engine, prompt: dict[str, Any], png: bytes) -> None:
    result = engine.run(prompt, files={"a.png": png})
    assert all(decoded(output.data).info == {} for output in result.outputs)
    asked = engine.run(prompt, files={"a.png": png}, extra_pnginfo={"workflow": {"id": 7}})
    for output in asked.outputs:
        info = decoded(output.data).info
        assert json.loads(info["prompt"]) == prompt
        assert json.loads(info["workflow"]) == {"id": 7}


def test_only_some_outputs(engine: Engine, prompt: dict[str, Any], png: bytes) -> None:
    result = engine.run(prompt, files={"a.png": png}, outputs=["4"])
    assert [timing.node_id for timing in result.timings] == ["1", "4"]


def test_an_output_connected_to_nothing_is_a_warning(
    engine: Engine, prompt: dict[str, Any], png: bytes, node: Node
) -> None:
    result = engine.run({**prompt, "9": node("PreviewImage")}, files={"a.png": png})
    assert result.ok
    assert "node 9 (PreviewImage) was left out" in result.warnings[0]


def test_a_16_bit_picture_is_clipped_with_a_warning(engine: Engine, prompt: dict[str, Any], tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "a.png")
    result = engine.run(prompt, files={"a.png": (tmp_path / "a.png").read_bytes()})
    assert result.ok
    assert "16 bits" in result.warnings[0]


class Family:
    """A plugin whose model the toy Cut needs."""

    @hookimpl
    def comfy_cpu_models(self) -> list[ModelSpec]:
        return [ModelSpec("cutter", "hf:x/y", (ModelFile("m.onnx", "cut/m.onnx"),), "MIT")]

    @hookimpl
    def comfy_cpu_models_for_node(self, node: Any) -> list[ModelNeed]:
        return [ModelNeed("cutter")] if node.class_type == "Cut" else []


def test_models_are_looked_for_before_any_node_runs(toy: Toy, node: Node, workdir: Path, tmp_path: Path) -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Family(), name="family")
    ran: list[int] = []
    first = toy("First", lambda: (ran.append(1),))
    cut = toy("Cut", lambda x: None, required={"x": ("INT",)}, returns=(), OUTPUT_NODE=True)
    registry = {made.class_type: made for made in (*NODE_CLASSES, first, cut)}
    tree = ModelTree(tmp_path / "models")
    engine = Engine(registry, Plugins(manager), tree, workdir=workdir)
    prompt = {"a": node("First"), "b": node("Cut", x=["a", 0])}
    with pytest.raises(ModelMissing, match=r"cut/m\.onnx") as error:
        engine.run(prompt)
    assert "models fetch" in (error.value.remedy or "")
    assert (ran, list(workdir.iterdir())) == ([], [])
    tree.path("cut/m.onnx").parent.mkdir(parents=True)
    tree.path("cut/m.onnx").touch()
    assert engine.run(prompt).ok
    assert ran == [1]
    assert engine.run(prompt).timings[0].cached
    tree.path("cut/m.onnx").write_bytes(b"another model")
    assert engine.run(prompt).ok
    assert ran == [1, 1], "results of a model that was replaced are not used again"


def test_the_directory_is_gone_whatever_happens(make_engine: MakeEngine, toy: Toy, node: Node, workdir: Path) -> None:
    seen: list[Path] = []
    cancel = threading.Event()

    def work(how: str) -> None:
        run = current_run()
        assert run is not None
        seen.append(run.folders.output)
        (run.folders.output / "left.png").touch()
        (run.folders.temp / "deep").mkdir()
        match how:
            case "fail":
                raise RuntimeError("broken")
            case "block":
                raise ValueError("Content blocked by gate")
            case "cancel":
                cancel.set()
                run.check()
            case "quit":
                raise SystemExit
            case "interrupt":
                raise KeyboardInterrupt

    engine = make_engine(toy("Work", work, required={"how": ("STRING",)}, returns=(), OUTPUT_NODE=True))
    for how, status in {
        "well": "completed", "fail": "failed", "block": "blocked", "cancel": "cancelled", "quit": "failed"
    }.items():  # fmt: skip
        cancel.clear()
        assert engine.run({"w": node("Work", how=how)}, cancel=cancel).status == status
        assert list(workdir.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        engine.run({"w": node("Work", how="interrupt")})
    assert list(workdir.iterdir()) == []
    assert len(set(seen)) == 6, "every run has a directory of its own"
    assert current_run() is None


def test_two_runs_at_once_do_not_see_each_other(make_engine: MakeEngine, toy: Toy, node: Node, workdir: Path) -> None:
    meet = threading.Barrier(2, timeout=20)

    def work(name: str) -> dict[str, Any]:
        run = current_run()
        assert run is not None
        for step in range(20):
            meet.wait()
            assert current_run() is run
            run.emit(Progress("step", value=step, total=20, message=name))
        run.warn(name)
        file = run.folders.output / "same.txt"
        file.write_text(name)
        meet.wait()
        assert (run.folders.input / "who").read_text() == name
        return {"ui": {"text": [file.read_text()]}}

    engine = make_engine(toy("Work", work, required={"name": ("STRING",)}, returns=(), OUTPUT_NODE=True))
    events: dict[str, list[Progress]] = {"a": [], "b": []}
    results: dict[str, Any] = {}

    def run(name: str) -> None:
        prompt = {f"node-{name}": node("Work", name=name)}
        results[name] = engine.run(prompt, files={"who": name.encode()}, on_event=events[name].append)

    threads = [threading.Thread(target=run, args=(name,)) for name in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, result in results.items():
        assert result.ok, result.errors
        assert [output.text for output in result.outputs] == [name]
        assert result.warnings == (name,)
        assert {event.node_id for event in events[name]} == {f"node-{name}"}
        steps = [event for event in events[name] if event.kind == "step"]
        assert [event.message for event in steps] == [name] * 20
    assert list(workdir.iterdir()) == []


def test_many_runs_in_many_threads(engine: Engine, node: Node, workdir: Path, png: bytes) -> None:
    def run(number: int, results: list[Any]) -> None:
        for color in range(number * 1000, number * 1000 + 6):
            prompt = {
                "1": node("EmptyImage", width=4, height=4, batch_size=1, color=color),
                "2": node("PreviewImage", images=["1", 0]),
            }
            results.append((color, engine.run(prompt, files={f"{color}.png": png})))

    results: list[Any] = []
    threads = [threading.Thread(target=run, args=(number, results)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 24
    for color, result in results:
        (output,) = result.outputs
        assert decoded(output.data).getpixel((0, 0)) == (color >> 16, color >> 8 & 0xFF, color & 0xFF)
    assert list(workdir.iterdir()) == []


def in_a_fresh_interpreter(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_imports_no_torch() -> None:
    program = """
import sys
from comfy_cpu_core.results import RunRequest
from comfy_cpu_engine.target import open_embedded

prompt = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "ImageScale", "inputs": {
        "image": ["1", 0], "upscale_method": "bicubic", "width": 8, "height": 8, "crop": "center"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}
target = open_embedded("embedded", {"models": "/nowhere"})
result = target.submit(RunRequest(prompt)).wait()
target.close()
assert result.ok, result.errors
print(sorted({"torch", "scipy", "cv2", "transformers", "openvino", "onnxruntime"} & set(sys.modules)))
"""
    assert in_a_fresh_interpreter(program) == "[]"


def test_the_plugin_imports_nothing_heavy() -> None:
    program = "import sys, comfy_cpu_engine.plugin; print(sorted({'numpy', 'PIL'} & set(sys.modules)))"
    assert in_a_fresh_interpreter(program) == "[]"
