"""``comfy-cpu convert`` and ``comfy-cpu nodes list``, as a user calls them."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from comfy_cpu_core import builtin
from comfy_cpu_core import plugins as plugins_module
from comfy_cpu_core import registry as registry_module
from comfy_cpu_core.cli import main
from comfy_cpu_core.convert import CannotRun, InputChange, provider_to_cpu
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.workflow import PromptNode

#: `comfy_cpu_core.cli.main` as an attribute is the function.
main_module = importlib.import_module("comfy_cpu_core.cli.main")

SECOND = "BG_remove_BEN2_simple_2nd.json"
CLASSES = ["LoadImage", "SmartResizeForModel", "RestoreOriginalSize", "FreeVRAMInline"]


class Node:
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}


class CutNode:
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "provider": (["CPU", "CUDA"],)}, "optional": {"note": ("STRING",)}}


class Broken:
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        raise OSError("no folder")


class Ben2:
    @hookimpl
    def comfy_cpu_convert_node(self, node: PromptNode) -> Iterable[InputChange | CannotRun]:
        if node.class_type == "OnlyCuda":
            return [CannotRun("its kernels are written for CUDA")]
        return list(provider_to_cpu(node))

    @hookimpl
    def comfy_cpu_node_classes(self) -> Iterable[NodeClass]:
        yield NodeClass("BEN2_ONNX_RemoveBg", CutNode, "Remove background", requires="a model")
        for name in [*CLASSES, "PreviewImage", "OnlyCuda"]:
            yield NodeClass(name, Node, f"The {name}", "does a thing")


class Other:
    @hookimpl
    def comfy_cpu_node_classes(self) -> Iterable[NodeClass]:
        return [NodeClass("PreviewImage", Node, "another"), NodeClass("Broken", Broken, "Broken")]


class Output(NamedTuple):
    code: int
    stdout: str
    stderr: str


Run = Callable[..., Output]


@pytest.fixture
def plugins(make_plugins: Callable[..., Plugins]) -> Plugins:
    return make_plugins(core=builtin, ben2=Ben2(), other=Other())


@pytest.fixture
def run(plugins: Plugins, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    for module in (main_module, plugins_module, registry_module):
        monkeypatch.setattr(module, "get_plugins", lambda: plugins)
    registry_module.get_registry.cache_clear()

    def call(*arguments: str | Path) -> Output:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert isinstance(caught.value.code, int)
        return Output(caught.value.code, *capsys.readouterr())

    yield call
    registry_module.get_registry.cache_clear()


@pytest.fixture
def flow(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(prompt: dict[str, Any]) -> Path:
        path = tmp_path / "flow.json"
        path.write_text(json.dumps(prompt))
        return path

    return write


API = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "4": {"class_type": "BEN2_ONNX_RemoveBg", "inputs": {"image": ["1", 0], "provider": "CUDA", "note": "x" * 80}},
}


def test_the_report_as_a_table(run: Run, flow: Any) -> None:
    output = run("convert", flow(API))
    assert output.code == 0
    why = "there is no CUDA on a CPU machine: the model runs on the CPU"
    assert [line.split("\t") for line in output.stdout.splitlines()] == [
        ["what", "node", "class", "input", "old", "new", "why"],
        ["changed", "4", "BEN2_ONNX_RemoveBg", "provider", '"CUDA"', '"CPU"', why],
    ]
    assert output.stderr == ""


def test_nothing_to_change(run: Run, flow: Any) -> None:
    output = run("convert", flow({"1": API["1"]}))
    assert (output.code, output.stdout) == (0, "nothing to change: the workflow runs on a CPU as it is\n")


def test_every_kind_of_line(run: Run, ui: Any, flow: Any, plugins: Plugins) -> None:
    class Fails:
        @hookimpl
        def comfy_cpu_convert_node(self, node: PromptNode) -> Iterable[InputChange]:
            if node.id == "1":
                raise ValueError("oh")
            return [InputChange("provider", "CPU", "no CUDA")] if node.id == "4" else []

    plugins.manager.register(Fails(), name="fails")
    graph = (
        ui()
        .node(1, "LoadImage")
        .node(2, "OnlyCuda")
        .node(3, "Note")
        .node(4, "Who", "provider*:STRING", "", ["CUDA" * 30])
    )
    output = run("convert", flow(graph.document()))
    assert output.code == 3
    lines = [line.split("\t") for line in output.stdout.splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["changed", "4", "Who"],
        ["cannot run", "2", "OnlyCuda"],
        ["unknown", "4", "Who"],
        ["not checked", "1", "LoadImage"],
        ["left out", "3", "Note"],
    ]
    assert lines[1][4] == '"' + "CUDA" * 14 + "..."
    assert [line[6] for line in lines[2:]] == [
        "its kernels are written for CUDA",
        "no plugin here has this class; the names of its inputs are those in the file",
        "plugin fails failed: ValueError: oh",
        "note",
    ]
    assert output.stderr.splitlines() == [
        "warning: 1 unknown node class: Who; 1 that cannot run on a CPU; 1 that a plugin failed on",
        "hint: install the plugin that has the class, or run the workflow on a ComfyUI (--object-info)",
    ]


def test_json(run: Run, flow: Any) -> None:
    output = run("convert", flow(API), "--json", "--set", "4.note=short")
    assert output.code == 0
    answer = json.loads(output.stdout)
    assert list(answer) == ["report", "workflow"]
    assert answer["report"]["ok"] is True
    assert [(c["node_id"], c["input"], c["old"], c["new"]) for c in answer["report"]["changes"]] == [
        ("4", "provider", "CUDA", "CPU")
    ]
    assert answer["workflow"]["4"]["inputs"] == {"image": ["1", 0], "provider": "CPU", "note": "short"}


def test_json_of_what_cannot_run(run: Run, flow: Any) -> None:
    output = run("convert", flow({**API, "9": {"class_type": "OnlyCuda", "inputs": {}}}), "--json")
    assert output.code == 3
    answer = json.loads(output.stdout)
    assert answer["report"]["cannot_run"][0]["node_id"] == "9"
    assert set(answer["workflow"]) == {"1", "4", "9"}
    assert output.stderr == "warning: 1 that cannot run on a CPU; the workflow is written all the same\n"


def test_a_value_that_is_set_is_converted_too(run: Run, flow: Any) -> None:
    output = run(
        "convert", flow({"1": {"class_type": "LoadImage", "inputs": {"provider": "CPU"}}}), "-s", "1.provider=DirectML"
    )
    assert "no DirectML on a CPU machine" in output.stdout


def test_output_in_api_format(run: Run, flow: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    output = run("convert", flow(API), "-o", target)
    assert output.code == 0
    assert json.loads(target.read_text())["4"]["inputs"]["provider"] == "CPU"
    assert output.stderr == f"wrote {target} (API format)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flow.json", "out.json"]


def test_output_to_a_link_writes_what_it_leads_to(run: Run, flow: Any, tmp_path: Path) -> None:
    (tmp_path / "real.json").touch()
    (tmp_path / "link.json").symlink_to("real.json")
    assert run("convert", flow(API), "-o", tmp_path / "link.json").code == 0
    assert (tmp_path / "link.json").is_symlink()
    assert "1" in json.loads((tmp_path / "real.json").read_text())


def test_output_to_a_pipe_leaves_it_a_pipe(run: Run, flow: Any, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("convert", flow(API), "-o", pipe).code == 0
        assert "1" in json.loads(os.read(reader, 100_000))
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_bypassed_safety_gate_is_warned_of(run: Run, ui: Any, flow: Any) -> None:
    graph = ui().node(1, "LoadImage", "", "IMAGE").node(2, "SomebodysNSFWFilter", "image:IMAGE", "IMAGE", mode=4)
    output = run("convert", flow(graph.document()))
    warning = "warning: the safety check of node 2 (SomebodysNSFWFilter) was left out: it is bypassed in the workflow"
    assert output.stderr.splitlines() == [warning]


def test_other_nodes_that_are_bypassed_are_in_the_report_alone(run: Run, ui: Any, flow: Any) -> None:
    graph = ui().node(1, "LoadImage", "", "IMAGE").node(2, "PreviewImage", "image:IMAGE", mode=4)
    output = run("convert", flow(graph.document()))
    assert "left out\t2\tPreviewImage" in output.stdout
    assert output.stderr == ""


def test_output_in_ui_format(run: Run, examples: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    output = run("convert", examples / SECOND, "--format", "ui", "-o", target)
    assert output.code == 0
    before = (examples / SECOND).read_text()
    assert json.loads(target.read_text()) == json.loads(before.replace('"CUDA"', '"CPU"'))
    assert output.stderr == f"wrote {target} (UI format)\n"


def test_output_is_written_even_if_it_cannot_run(run: Run, flow: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    output = run("convert", flow({**API, "9": {"class_type": "Who", "inputs": {}}}), "-o", target)
    assert output.code == 3
    assert json.loads(target.read_text())["9"] == {"class_type": "Who", "inputs": {}}
    assert "1 unknown node class: Who; the workflow is written all the same" in output.stderr


def test_ui_format_of_an_api_workflow(run: Run, flow: Any) -> None:
    output = run("convert", flow(API), "--format", "ui")
    assert output.code == 3
    assert output.stderr.startswith("error: flow.json: it was read in API format")


def test_object_info(run: Run, flow: Any, tmp_path: Path) -> None:
    info = tmp_path / "info.json"
    info.write_text(json.dumps({"Who": {"input": {"required": {"n": ["INT", {"default": 4}]}}, "output": []}}))
    path = flow({"nodes": [{"id": 1, "type": "Who", "widgets_values": [5]}]})
    assert run("convert", path).code == 3
    output = run("convert", path, "--object-info", info, "--json")
    assert output.code == 0
    assert json.loads(output.stdout)["workflow"] == {"1": {"class_type": "Who", "inputs": {"n": 5}}}


@pytest.mark.parametrize("content", ["[]", '{"a": 1}'])
def test_bad_object_info(run: Run, flow: Any, tmp_path: Path, content: str) -> None:
    info = tmp_path / "info.json"
    info.write_text(content)
    output = run("convert", flow(API), "--object-info", info)
    assert output.code == 3
    assert output.stderr.startswith("error: info.json: not what /object_info answers\nhint: ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.json"], 3, "error: there is no workflow file missing.json\n"),
        (["flow.json", "-s", "4.x"], 2, "error: --set '4.x' is not NODE.INPUT=JSON\n"),
        (["flow.json", "-s", "5.x=1"], 3, "error: flow.json: there is no node '5'\n"),
        (["flow.json", "-o", "flow.json/out.json"], 3, "error: cannot write flow.json/out.json: "),
        (["flow.json", "--format", "xml"], 2, "Usage:"),
    ],
)
def test_errors(
    run: Run, flow: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(flow(API).parent)
    output = run("convert", *arguments)
    assert output.code == code
    assert output.stderr.startswith(message)
    assert "Traceback" not in output.stderr


def test_help_teaches(run: Run) -> None:
    output = run("convert", "--help")
    assert output.code == 0
    assert "\n    comfy-cpu convert workflow.json -o cpu.json\n" in output.stdout  # the examples keep their lines


def test_nodes_list(run: Run) -> None:
    output = run("nodes", "list")
    assert output.code == 0
    lines = output.stdout.splitlines()
    assert lines[0] == "class\tname\tplugin\tpackage\tneeds"
    assert lines[1] == "BEN2_ONNX_RemoveBg\tRemove background\tben2\tdist-ben2\ta model"
    assert "PreviewImage\tThe PreviewImage\tben2\tdist-ben2\t" in lines
    assert output.stderr.splitlines() == [
        "warning: PreviewImage is taken from plugin ben2; other has it too",
        "warning: Broken: its inputs cannot be read (OSError: no folder)",
    ]


def test_nodes_list_as_json(run: Run) -> None:
    rows = {row["class_type"]: row for row in json.loads(run("nodes", "list", "--json").stdout)}
    assert rows["LoadImage"] == {
        "class_type": "LoadImage",
        "display_name": "The LoadImage",
        "plugin": "ben2",
        "distribution": "dist-ben2",
        "requires": "",
        "summary": "does a thing",
        "known": True,
    }
    assert rows["Broken"]["known"] is False


def test_nodes_list_of_a_workflow(run: Run, flow: Any) -> None:
    path = flow({**API, "9": {"class_type": "Who", "inputs": {}}, "10": API["1"]})
    output = run("nodes", "list", "--workflow", path)
    assert output.code == 0
    assert [line.split("\t")[:3] for line in output.stdout.splitlines()[1:]] == [
        ["BEN2_ONNX_RemoveBg", "Remove background", "ben2"],
        ["LoadImage", "The LoadImage", "ben2"],
        ["Who", "", "unknown"],
    ]


def test_plugins_list_shows_what_is_wrong_with_node_classes(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(run("plugins", "list", "--json").stdout)}
    assert rows["other"]["state"] == "active"
    assert rows["other"]["problem"] == "the node class 'PreviewImage' is taken from plugin 'ben2'"
