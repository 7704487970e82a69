"""The folder in ``custom_nodes``: its files, their truth, and how it gets to its place."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import comfy_cpu_nodes.pack as pack_module
from comfy_cpu_core.errors import BuildError
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_nodes.nodes import NODES
from comfy_cpu_nodes.pack import PACK_NAME, build, write
from comfy_cpu_nodes.pack.__main__ import main
from comfy_cpu_nodes.pack.help_pages import help_page

ROOT = Path(__file__).parents[3]
MODELS = "def comfy_cpu_models("
VERSION = metadata.version("comfy-cpu-nodes")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return build(["openvino", "models"])


def load_folder(folder: Path) -> Any:
    """Import the folder as ComfyUI does."""
    spec = importlib.util.spec_from_file_location("pack_under_test", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the files ------------------------------------------------------------------------------------------------------


def test_what_is_in_the_folder(files: dict[str, bytes]) -> None:
    pages = {f"web/docs/{node.class_type}.md" for node in NODES}
    examples = {name for name in files if name.startswith("example_workflows/")}
    others = {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", ".comfyignore"}
    assert set(files) == pages | examples | others
    assert examples


def test_the_requirement_is_this_version_with_the_extras(files: dict[str, bytes]) -> None:
    (line,) = files["requirements.txt"].decode().splitlines()
    requirement = Requirement(line)
    assert (requirement.name, requirement.extras) == ("comfy-cpu-nodes", {"openvino", "models"})
    assert str(requirement.specifier) == f"=={VERSION}"
    assert build([])["requirements.txt"].decode() == f"comfy-cpu-nodes=={VERSION}\n"


def test_the_extra_models_brings_every_plugin_that_has_models() -> None:
    project = tomllib.loads((ROOT / "packages" / "nodes-cpu" / "pyproject.toml").read_text())["project"]
    brought = set(project["optional-dependencies"]["models"])
    plugins = {path.parents[2].name for path in ROOT.glob("plugins/*/src/*/__init__.py") if MODELS in path.read_text()}
    assert brought == {f"comfy-cpu-plugin-{name}" for name in plugins - {"example"}}


def test_the_metadata_that_the_registry_reads(files: dict[str, bytes]) -> None:
    described = tomllib.loads(files["pyproject.toml"].decode())
    assert described["project"]["name"] == PACK_NAME
    assert described["project"]["version"] == VERSION
    assert described["project"]["dependencies"] == files["requirements.txt"].decode().splitlines()
    assert {"PublisherId", "DisplayName", "Icon", "requires-comfyui"} == set(described["tool"]["comfy"])


def test_the_registry_forbids_to_evaluate_and_to_install_at_run_time(files: dict[str, bytes]) -> None:
    code = files["__init__.py"].decode()
    assert not any(word in code for word in ("eval(", "exec(", "subprocess", "os.system"))


def test_example_workflows_are_those_of_the_repository(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        if name.startswith("example_workflows/"):
            assert data == (ROOT / "examples" / "workflows" / Path(name).name).read_bytes()


def test_example_workflows_use_nodes_that_are_there(files: dict[str, bytes]) -> None:
    ours = {node.class_type for node in NODES}
    comfyui = {"LoadImage", "PreviewImage", "SaveImage", "MaskToImage", "Note", "MarkdownNote"}
    for name, data in files.items():
        if name.startswith("example_workflows/"):
            assert {node["type"] for node in json.loads(data)["nodes"]} <= ours | comfyui, name


# --- help pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.class_type)
def test_a_help_page_names_everything(node: NodeClass, files: dict[str, bytes]) -> None:
    page = files[f"web/docs/{node.class_type}.md"].decode()
    cls: Any = node.cls
    assert page.startswith(f"# {node.display_name}\n\n{cls.DESCRIPTION}\n")
    for spec in node.signature.inputs:
        assert (f"| `{spec.name}`" in page) == (spec.section != "hidden")
    for name in node.signature.output_names:
        assert f"| `{name}`" in page
    assert ("Needs " in page) == bool(node.requires)


class Example:
    DESCRIPTION = "Does it."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("picture",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        from comfy_cpu_nodes import host

        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "What | is changed."}),
                "model": (host.models().files("llm", [".gguf"]), {"tooltip": "Which."}),
            },
            "optional": {
                "mode": (["a", "b"], {"default": "b", "tooltip": "How."}),
                "amount": ("INT", {"default": 0, "min": -4, "max": 4, "tooltip": "How much."}),
                "text": ("STRING", {"default": "", "tooltip": "Words."}),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }


def test_a_help_page_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "mine.gguf").touch()
    monkeypatch.setenv("COMFY_CPU_MODELS", str(tmp_path))  # what this machine has stays out
    node = NodeClass("Example", Example, "An Example", requires="llama; the model llama-3.1-8b")
    assert (
        help_page(node)
        == """\
# An Example

Does it.

| input | type | default | meaning |
| --- | --- | --- | --- |
| `image` | IMAGE |  | What \\| is changed. |
| `model` | what is found among the models |  | Which. |
| `mode` (optional) | `a`, `b` | `b` | How. |
| `amount` (optional) | INT -4 to 4 | `0` | How much. |
| `text` (optional) | STRING |  | Words. |

| output | type |
| --- | --- |
| `picture` | IMAGE |

Needs llama; the model llama-3.1-8b.

`comfy-cpu models fetch llama-3.1-8b --models DIR` brings the model; DIR is the `models` directory of this ComfyUI.
"""
    )


# --- writing --------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_written_whole(files: dict[str, bytes], tmp_path: Path) -> None:
    folder = write(files, tmp_path)
    assert folder == tmp_path / "comfy-cpu"
    assert contents(folder) == files
    assert list(tmp_path.iterdir()) == [folder]


def test_writing_again_removes_what_is_no_longer_there_but_keeps_what_the_user_wrote(tmp_path: Path) -> None:
    old = write({"requirements.txt": b"old", "web/docs/Gone.md": b""}, tmp_path)
    (old / "disabled_nodes.txt").write_text("FreeVRAM\n")
    new = {"requirements.txt": b"new", "__init__.py": b""}
    assert contents(write(new, tmp_path)) == {**new, "disabled_nodes.txt": b"FreeVRAM\n"}
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("elsewhere")])
def test_what_we_did_not_write_stays(make: Callable[[Path], None], tmp_path: Path) -> None:
    there = tmp_path / "comfy-cpu"
    make(there)
    with pytest.raises(BuildError, match="comfy-cpu did not write it") as caught:
        write({"requirements.txt": b""}, tmp_path)
    assert "move it away" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == [there]


def test_a_failure_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write({"requirements.txt": b"old"}, tmp_path)
    rename = Path.rename

    def fail_on_the_second(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_second)
    with pytest.raises(BuildError, match="No space left"):
        write({"requirements.txt": b"new"}, tmp_path)
    assert contents(old) == {"requirements.txt": b"old"}
    assert list(tmp_path.iterdir()) == [old]


def test_a_directory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["pack", str(tmp_path / "file")])
    assert main() == BuildError.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cannot write ")
    assert len(captured.err.splitlines()) == 2


# --- the folder at work ---------------------------------------------------------------------------------------------


def test_the_folder_brings_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["pack", str(tmp_path), "--extra", "openvino"])
    monkeypatch.delenv("COMFY_CPU_DISABLED_NODES", raising=False)
    assert main() == 0
    answer = json.loads(capsys.readouterr().out)
    folder = Path(answer["folder"])
    (folder / "disabled_nodes.txt").write_text("ShowText|*")
    module = load_folder(folder)
    assert set(module.NODE_CLASS_MAPPINGS) == set(answer["classes"]) - {"ShowText|pysssss"}
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)
    assert (folder / module.WEB_DIRECTORY / "docs").is_dir()
    assert not hasattr(module, "comfy_entrypoint")
    assert answer["version"] == VERSION
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["disabled"] == ["ShowText|pysssss"]


def test_without_the_package_the_folder_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(build([]), tmp_path)
    monkeypatch.setitem(sys.modules, "comfy_cpu_nodes.comfyui", None)
    with pytest.raises(ImportError, match=rf"-m pip install -r {folder}{os.sep}requirements\.txt"):
        load_folder(folder)


def test_another_error_inside_is_not_taken_for_a_missing_package(tmp_path: Path) -> None:
    folder = write(build([]), tmp_path)
    program = f"import sys, runpy; sys.modules['PIL'] = None; runpy.run_path({str(folder / '__init__.py')!r})"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")
    assert "PIL" in done.stderr.splitlines()[-1]


def test_names_are_public() -> None:
    assert all(hasattr(pack_module, name) for name in pack_module.__all__)
