"""The client's target, and the worker's back end, on a real ComfyUI: the same results as embedded."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui_server import Server, Workbench
from PIL import Image

from comfy_cpu_client import Client, FileInput
from comfy_cpu_core.errors import WorkflowInvalid
from comfy_cpu_core.results import Output, Progress, Result
from comfy_cpu_worker.backends.comfyui import ComfyUIBackend, ComfyUIOptions
from comfy_cpu_worker.work import Work

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "examples" / "workflows"
PHOTO = ROOT / "examples" / "astronaut.jpg"

Prompt = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


SMALL: Prompt = {
    "1": node("LoadImage", image="photo.jpg"),
    "2": node("ImageCrop", image=["1", 0], width=64, height=48, x=90, y=7),
    "3": node("BEN2_ONNX_RemoveBg", image=["2", 0], provider="CPU"),
    "4": node("SaveImage", images=["3", 0], filename_prefix="sub/cut"),
    "5": node("PreviewImage", images=["2", 0]),
    "6": node("NudeNetSafetyChecker", image=["2", 0]),
    "7": node("ShowText|pysssss", text=["6", 0]),
}

FAULTY = {
    "Sleep": '''
class Sleep:
    CATEGORY = "test"
    FUNCTION = "go"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("FLOAT", {})}, "optional": {"steps": ("INT", {})}}

    def go(self, seconds, steps=0):
        import time, torch
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
        bar = ProgressBar(steps or 1)
        for step in range(steps):
            bar.update(1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
            throw_exception_if_processing_interrupted()
        return (torch.zeros(1, 8, 8, 3),)
''',
    "Raise": '''
class Raise:
    CATEGORY = "test"
    FUNCTION = "go"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"message": ("STRING", {})}}

    def go(self, message):
        import os, signal, time
        if message == "die":
            time.sleep(0.5)  # so that what was said before has left
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(message)
''',
}  # fmt: skip


def working(class_type: str, **inputs: Any) -> Prompt:
    return {"1": node(class_type, **inputs), "2": node("PreviewImage", images=["1", 0])}


@pytest.fixture(scope="module")
def embedded(model_tree: Path) -> Iterator[Client]:
    with Client("embedded", models=model_tree) as client:
        yield client


@pytest.fixture(scope="module")
def bench(workbench: Workbench) -> Workbench:
    """The shared one, with some nodes that go wrong. The shared server has started before and knows none of them."""
    for name, text in FAULTY.items():
        file = workbench.root / "custom_nodes" / f"faulty_{name.lower()}.py"
        file.write_text(f"{text}\n\nNODE_CLASS_MAPPINGS = {{{name!r}: {name}}}\n")
    return workbench


@pytest.fixture(scope="module")
def started(bench: Workbench) -> Iterator[Server]:
    with bench.serve("--extra-model-paths-config", bench.root / "disk.yaml") as server:
        yield server


@pytest.fixture(scope="module")
def remote(started: Server) -> Iterator[Client]:
    with Client(f"comfyui+{started.url}") as client:
        yield client


@pytest.fixture(scope="module")
def same_pillow(bench: Workbench) -> bool:
    return bench.distributions()["pillow"] == metadata.version("pillow")


@pytest.fixture
def same(same_pillow: bool) -> Callable[[Result, Result], None]:
    def content(output: Output) -> bytes:
        if output.kind != "image" or same_pillow:
            return output.data
        with Image.open(io.BytesIO(output.data)) as picture:
            return np.asarray(picture).tobytes()

    def essence(result: Result) -> list[tuple[Any, ...]]:
        return [
            (o.node_id, o.class_type, o.kind, o.media_type, o.folder, o.subfolder, content(o)) for o in result.outputs
        ]

    def check(theirs: Result, ours: Result) -> None:
        assert theirs.ok, theirs.errors
        assert ours.ok, ours.errors
        assert essence(theirs) == essence(ours)
        assert theirs.changes == ours.changes

    return check


# --- the client -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BG_remove_BEN2_simple_2nd", "background_removal"])
def test_a_shared_workflow_in_ui_format_gives_the_same_result(
    name: str, remote: Client, embedded: Client, same: Callable[..., None], same_pillow: bool
) -> None:
    workflow = WORKFLOWS / f"{name}.json"
    nodes = embedded.prepare(workflow).workflow.nodes
    inputs = {f"{i}.image": PHOTO for i, loader in nodes.items() if loader.class_type == "LoadImage"}
    same(remote.run(workflow, inputs=inputs), embedded.run(workflow, inputs=inputs))
    print(f"{name}: files the same, not just pixels: {same_pillow}")


def test_every_kind_of_output_progress_and_times(remote: Client, embedded: Client, same: Callable[..., None]) -> None:
    events: list[Progress] = []
    files = {"photo.jpg": PHOTO}
    theirs = remote.run(SMALL, files=files, on_event=events.append)
    same(theirs, embedded.run(SMALL, files=files))
    assert {event.node_id for event in events if event.kind == "finished"} == set(SMALL)
    assert events[-1].done == events[-1].nodes == len(SMALL)
    assert {timing.node_id for timing in theirs.timings} == set(SMALL)
    assert 0 < sum(timing.seconds for timing in theirs.timings) <= theirs.execution_seconds + 1
    again = remote.run(SMALL, files=files)
    same(again, theirs)
    assert all(timing.cached for timing in again.timings)


def test_steps(remote: Client) -> None:
    events: list[Progress] = []
    assert remote.run(working("Sleep", seconds=0, steps=3), on_event=events.append).ok
    assert [event.value for event in events if event.kind == "step" and event.node_id == "1"] == [1, 2, 3]


def test_failures(remote: Client) -> None:
    result = remote.run(working("Raise", message="boom"))
    (failure,) = result.errors
    assert (result.status, failure.code, failure.message) == ("failed", "node_failed", "ValueError: boom")
    assert (failure.node_id, failure.class_type) == ("1", "Raise")
    assert "in go" in failure.details
    blocked = remote.run(working("Raise", message="Content blocked by a gate: x"))
    assert (blocked.status, blocked.errors[0].message) == ("blocked", "Content blocked by a gate: x")


def test_a_gate_of_ours_blocks(remote: Client, embedded: Client) -> None:
    facts = '{"primary_subject": "x", "secondary_subjects": [], "nsfw": true, "violence": false}'
    prompt = {
        **{key: SMALL[key] for key in ("1", "2")},
        "3": node("ImageSafetyGate", image=["2", 0], json_string=facts),
        "4": node("PreviewImage", images=["3", 0]),
        "5": node("PreviewImage", images=["2", 0]),
    }
    theirs, ours = (client.run(prompt, files={"photo.jpg": PHOTO}) for client in (remote, embedded))
    assert (theirs.status, theirs.errors, theirs.outputs) == (ours.status, ours.errors, ())
    assert theirs.status == "blocked"


def test_what_does_not_validate(remote: Client) -> None:
    with pytest.raises(WorkflowInvalid, match=r"node 1 \(LoadImage\): .*Invalid image file: photo\.jpg"):
        remote.submit(SMALL)
    with pytest.raises(WorkflowInvalid, match="Magic"):
        remote.submit(working("Magic"))
    mixed = {**working("Sleep", seconds=60), "8": node("LoadImage", image="x"), "9": node("SaveImage", images=["8", 0])}
    with pytest.raises(WorkflowInvalid, match=r"node 8 \(LoadImage\)"):
        remote.submit(mixed)
    assert remote.run(working("Sleep", seconds=0.5), timeout_s=30).ok, "what was accepted of it does not run on"


def test_cancel_and_deadline(remote: Client) -> None:
    first = remote.submit(working("Sleep", seconds=60))
    second = remote.submit(working("Sleep", seconds=61))
    second.cancel()
    assert second.wait(30).status == "cancelled"
    assert first.status() in {"queued", "running"}
    first.cancel()
    assert first.wait(30).status == "cancelled"
    late = remote.run(working("Sleep", seconds=62), timeout_s=1)
    assert (late.status, late.errors[0].code) == ("timed_out", "deadline")
    assert remote.run(working("Sleep", seconds=0.1)).ok


def test_health(remote: Client) -> None:
    health = remote.health()
    assert (health["ready"], health["queued"], health["running"]) == (True, 0, 0)
    assert health["version"]


# --- the worker's back end ------------------------------------------------------------------------------------------


def test_jobs_on_the_worker_s_back_end(
    bench: Workbench, embedded: Client, same: Callable[..., None], tmp_path: Path
) -> None:
    (bench.root / "input" / "baked.jpg").write_bytes(PHOTO.read_bytes())
    options = ComfyUIOptions(
        root=bench.root,
        python=bench.python,
        workdir=tmp_path / "work",
        arguments=(
            *("--base-directory", str(bench.root), "--database-url", f"sqlite:///{tmp_path}/comfyui.db"),
            *("--disable-api-nodes", "--extra-model-paths-config", str(bench.root / "disk.yaml")),
        ),
        deadline_grace_s=20,
        cancel_grace_s=20,
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COMFY", "HF_", "PYTHON", "VIRTUAL_ENV"))}
    environ = {**kept, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}

    def left() -> list[str]:
        (directory,) = (tmp_path / "work").iterdir()
        folders = ("input", "output", "temp")
        # The links are to what lies in ComfyUI's own input folder.
        found = [path for name in folders for path in (directory / name).rglob("*")]
        return [path.name for path in found if not path.is_dir() and not path.is_symlink()]

    async def run(backend: ComfyUIBackend, workflow: Any, **more: Any) -> Result:
        return await backend.run(Work("job", workflow, **more), on_event=lambda event: None)

    async def script() -> None:
        backend = ComfyUIBackend(options, environ=environ, workflows={"small": SMALL})
        try:
            await backend.start()
            assert backend.health().problem == ""
            ours = embedded.run(SMALL, files={"photo.jpg": PHOTO})
            for _ in range(2):  # the second time with results of the first in ComfyUI's memory
                theirs = await run(backend, SMALL, inputs={"1.image": FileInput("photo.jpg", PHOTO.read_bytes())})
                same(theirs, ours)
                assert [o.filename for o in theirs.images if o.folder == "output"] == ["cut_00001_.png"]
                assert left() == []
            baked = {**SMALL, "1": node("LoadImage", image="baked.jpg")}
            same(await run(backend, baked), ours)
            late = await run(backend, working("Sleep", seconds=60), timeout_s=1)
            assert late.status == "timed_out"
            pid = backend.health().pid
            died = await run(backend, working("Raise", message="die"))
            assert (died.status, died.errors[0].code, died.errors[0].node_id) == ("failed", "worker_crashed", "1")
            same(await run(backend, SMALL, files={"photo.jpg": PHOTO.read_bytes()}), ours)
            assert backend.health().pid != pid
        finally:
            await backend.close()

    asyncio.run(script())
    assert list((tmp_path / "work").iterdir()) == []
