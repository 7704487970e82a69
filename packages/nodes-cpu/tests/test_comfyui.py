"""What a ComfyUI gets of us: which classes, with which messages, and nothing heavy."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_cpu_core.errors import ContentBlocked, ModelMissing
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_nodes import comfyui
from comfy_cpu_nodes.comfyui import DISABLED_FILE, DISABLED_VARIABLE, EXTRAS, choose, disabled_patterns, load
from comfy_cpu_nodes.host import MODEL_FOLDERS
from comfy_cpu_nodes.nodes import NODES

# Whatever is optional, and what would take seconds to import.
HEAVY = ["torch", "openvino", "onnxruntime", "transformers", "llama_cpp", "huggingface_hub", "nudenet", "cv2", "onnx"]


@pytest.fixture(autouse=True)
def nothing_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DISABLED_VARIABLE, raising=False)


def named(*class_types: str, extras: tuple[str, ...] = ()) -> list[NodeClass]:
    return [NodeClass(class_type, object, class_type, extras=extras) for class_type in class_types]


def names(nodes: Iterable[NodeClass]) -> list[str]:
    return [node.class_type for node in nodes]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make modules impossible to find."""

    def hide(*modules: str) -> None:
        def find(name: str) -> Any:
            return None if name in modules else object()

        comfyui._lacking.cache_clear()
        monkeypatch.setattr(comfyui, "find_spec", find)

    yield hide
    comfyui._lacking.cache_clear()


# --- switched off ---------------------------------------------------------------------------------------------------


def test_names_and_patterns_come_from_the_environment_and_the_file(tmp_path: Path) -> None:
    text = "\ufeff# other packs\nNudenet*  # all of it\n\n  Florence2Run\r\nShowText|pysssss\n"
    (tmp_path / DISABLED_FILE).write_bytes(text.encode())
    found = disabled_patterns({DISABLED_VARIABLE: " VRAM*, ,Florence2Run,"}, tmp_path)
    assert found == ["VRAM*", "Florence2Run", "Nudenet*", "ShowText|pysssss"]


def test_nothing_is_switched_off_by_default(tmp_path: Path) -> None:
    assert disabled_patterns({}, tmp_path) == []
    assert disabled_patterns({DISABLED_VARIABLE: ""}, tmp_path / "nowhere") == []


def test_a_file_that_cannot_be_read_is_said_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / DISABLED_FILE).write_bytes(b"\xff\xfe\xff")
    assert disabled_patterns({DISABLED_VARIABLE: "A"}, tmp_path) == ["A"]
    assert DISABLED_FILE in caplog.text


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ([], ["Florence2Run", "Florence2Loader", "ShowText|pysssss", "Odd[1]"]),
        (["Florence2*"], ["ShowText|pysssss", "Odd[1]"]),
        (["Florence2Run"], ["Florence2Loader", "ShowText|pysssss", "Odd[1]"]),
        (["florence2*"], ["Florence2Run", "Florence2Loader", "ShowText|pysssss", "Odd[1]"]),
        (["ShowText|pysssss", "Florence2???"], ["Florence2Loader", "Odd[1]"]),
        (["Odd[1]"], ["Florence2Run", "Florence2Loader", "ShowText|pysssss"]),
        (["*"], []),
    ],
)
def test_patterns(patterns: list[str], left: list[str]) -> None:
    nodes = named("Florence2Run", "Florence2Loader", "ShowText|pysssss", "Odd[1]")
    choice = choose(nodes, patterns)
    assert names(choice.on) == left
    assert set(choice.disabled) == set(names(nodes)) - set(left)


def test_a_pattern_that_fits_nothing_is_a_typo_worth_a_warning(
    without: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    without()
    (tmp_path / DISABLED_FILE).write_text("NudeNetSafetyCheckr\nVRAMMonitor*\n")
    with caplog.at_level(logging.INFO, "comfy_cpu"):
        classes, display_names = load(tmp_path)
    assert set(NODES_BY_NAME) - set(classes) == {"VRAMMonitor", "VRAMMonitorInline"}
    assert set(display_names) == set(classes)
    assert [r.getMessage() for r in caplog.records if "NudeNetSafetyCheckr" in r.getMessage()] == [
        "comfy-cpu: 'NudeNetSafetyCheckr' is to be switched off, but no node of ours is called so"
    ]
    assert "switched off: VRAMMonitor, VRAMMonitorInline" in caplog.text


NODES_BY_NAME = {node.class_type: node for node in NODES}


# --- optional libraries ---------------------------------------------------------------------------------------------


def test_a_missing_library_takes_only_its_nodes_away(without: Any) -> None:
    without("openvino", "onnxruntime")
    choice = choose([*named("Cut", extras=("openvino", "onnxruntime")), *named("Resize")], [])
    assert names(choice.on) == ["Resize"]
    assert choice.missing == {
        "Cut": f"needs openvino or onnxruntime: {sys.executable} -m pip install 'comfy-cpu-nodes[openvino]'"
    }


@pytest.mark.parametrize("there", ["openvino", "onnxruntime"])
def test_one_of_several_libraries_is_enough(without: Any, there: str) -> None:
    without(*{"openvino", "onnxruntime"} - {there})
    assert names(choose(named("Cut", extras=("openvino", "onnxruntime")), []).on) == ["Cut"]


def test_an_extra_may_bring_several_libraries(without: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfyui, "EXTRAS", {"words": ("one", "two")})
    without("two")
    assert choose(named("Speak", extras=("words",)), []).missing["Speak"].startswith("needs two: ")
    without("one", "two")
    assert choose(named("Speak", extras=("words",)), []).missing["Speak"].startswith("needs one and two: ")


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({"words": "2.1"}, ""),
        ({"words": "3.0.dev1"}, ""),
        ({}, ""),
        ({"words": "1.9"}, "needs words<4,>=2 (there is 1.9): "),
        ({"words": "4.0"}, "needs words<4,>=2 (there is 4.0): "),
    ],
)
def test_a_library_of_another_version_is_as_good_as_none(
    versions: dict[str, str], reason: str, without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise comfyui.metadata.PackageNotFoundError(name)
        return versions[name]

    lines = ["numpy>=99", 'words>=2,<4; extra == "words"', 'words>=9; extra == "more"']
    monkeypatch.setattr(comfyui.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(comfyui.metadata, "version", version)
    monkeypatch.setattr(comfyui, "EXTRAS", {"words": ("words",)})
    without()
    found = choose(named("Speak", extras=("words",)), []).missing.get("Speak", "")
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_what_is_missing_is_logged_once_for_all_classes(
    without: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    without("openvino", "onnxruntime")
    classes, _ = load(tmp_path)
    gone = [node.class_type for node in NODES if "openvino" in node.extras]
    assert gone
    assert set(NODES_BY_NAME) - set(classes) >= set(gone)
    (line,) = [r.getMessage() for r in caplog.records if "onnxruntime" in r.getMessage()]
    assert all(class_type in line for class_type in gone)
    assert "pip install 'comfy-cpu-nodes[openvino]'" in line


def test_what_is_switched_off_is_not_missing(without: Any) -> None:
    without("openvino", "onnxruntime")
    choice = choose(named("Cut", extras=("openvino",)), ["Cut"])
    assert (choice.disabled, choice.missing) == (("Cut",), {})


def test_extras_are_those_of_the_distribution() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) <= set(project["optional-dependencies"])
    assert {extra for node in NODES for extra in node.extras} == set(EXTRAS)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.class_type)
def test_extras_are_named_among_what_a_node_needs(node: NodeClass) -> None:
    for extra in node.extras:
        assert any(word in node.requires for word in (extra, *EXTRAS[extra]))
    assert bool(node.extras) == any(word in node.requires for word in EXTRAS), "a library that no extra brings"


# --- inside ComfyUI -------------------------------------------------------------------------------------------------


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    program = """
import json, sys
from pathlib import Path
from comfy_cpu_nodes.comfyui import load
classes, names = load(Path(sys.argv[1]))
for cls in classes.values():
    cls.INPUT_TYPES()
print(json.dumps([len(classes), sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    count, modules = json.loads(done.stdout)
    assert count
    assert set(HEAVY) & set(modules) == set()


def test_every_class_can_be_imported_without_any_optional_library(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY}))  # None: importing it fails
from comfy_cpu_nodes.nodes import NODES
for node in NODES:
    node.signature
print(len(NODES))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(NODES)


def test_model_folders_become_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    added = []
    paths = SimpleNamespace(models_dir="/c/models", add_model_folder_path=lambda *a: added.append(a))
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    load(tmp_path)
    assert added == [(name, f"/c/models/{name}") for name in MODEL_FOLDERS]


def test_a_name_that_another_pack_has_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(NODE_CLASS_MAPPINGS={"FreeVRAM": object}))
    load(tmp_path)
    (line,) = [r.getMessage() for r in caplog.records if "another pack" in r.getMessage()]
    assert "brings FreeVRAM too" in line
    assert DISABLED_VARIABLE in line


class Failing:
    """A node that fails with whatever it is given."""

    FUNCTION = "run"
    CATEGORY = "test"

    def run(self, error: Exception) -> None:
        raise error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The class as ComfyUI gets it."""
    import comfy_cpu_nodes.nodes

    monkeypatch.setattr(comfy_cpu_nodes.nodes, "NODES", (NodeClass("Failing", Failing, "Failing"),))
    classes, _ = load(tmp_path)
    return classes["Failing"]


def test_comfyui_shows_the_remedy_too(failing: Any) -> None:
    error = ModelMissing("no file a", remedy="fetch a")
    for _ in range(2):  # a remedy is not said twice
        with pytest.raises(ModelMissing, match=r"\Ano file a\nfetch a\Z") as caught:
            failing().run(error)
    assert caught.value is error


@pytest.mark.parametrize("error", [ContentBlocked("Content blocked by safety gate: a"), ValueError("x"), Exception()])
def test_other_messages_stay_as_they_are(failing: Any, error: Exception) -> None:
    before = str(error)
    with pytest.raises(type(error)) as caught:
        failing().run(error=error)
    assert caught.value is error
    assert str(error) == before


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.class_type)
def test_a_class_keeps_what_comfyui_reads_from_it(node: NodeClass, without: Any, tmp_path: Path) -> None:
    without()
    cls: Any = load(tmp_path)[0][node.class_type]
    original: Any = node.cls
    assert issubclass(cls, original)
    assert cls.INPUT_TYPES() == original.INPUT_TYPES()
    for attribute in ("FUNCTION", "CATEGORY", "DESCRIPTION", "RETURN_TYPES", "__name__", "__doc__", "__module__"):
        assert getattr(cls, attribute) == getattr(original, attribute)
    assert cls.CATEGORY
    assert cls.DESCRIPTION
    assert node.display_name
