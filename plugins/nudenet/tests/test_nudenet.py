from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import comfy_cpu_nudenet as plugin
from comfy_cpu_core.fetchers.package import package_file
from comfy_cpu_core.models import ModelNeed
from comfy_cpu_core.needs import find_model_file
from comfy_cpu_core.plugins import load_plugins
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_core.workflow import PromptNode


def test_the_model_is_pinned() -> None:
    (model,) = plugin.comfy_cpu_models()
    assert (model.id, model.source, model.files[0].target) == ("nudenet-320n", "package:nudenet", "Nudenet/320n.onnx")
    assert model.resolved


def test_the_doubt_about_the_licence_is_said() -> None:
    (model,) = plugin.comfy_cpu_models()
    for text in (model.licence, model.notice):
        assert "doubt" in text
        assert "AGPL-3.0" in text
        assert "MIT" in text


def test_size_and_hash_are_those_of_the_installed_package() -> None:
    (model,) = plugin.comfy_cpu_models()
    (file,) = model.files
    path = package_file("nudenet", file.path)
    assert path is not None
    data = path.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)


def test_the_packages_file_meets_the_need(tmp_path: Path) -> None:
    (model,) = plugin.comfy_cpu_models()
    assert find_model_file(model, model.files[0], ModelTree(tmp_path)) is not None


def test_which_nodes_need_it() -> None:
    assert list(plugin.comfy_cpu_models_for_node(PromptNode("3", "NudeNetSafetyChecker"))) == [
        ModelNeed("nudenet-320n")
    ]
    assert list(plugin.comfy_cpu_models_for_node(PromptNode("3", "BEN2_ONNX_RemoveBg"))) == []


def test_the_loader_needs_the_small_detector() -> None:
    node = PromptNode("3", "NudenetModelLoader", {"model": "320n.onnx"})
    assert list(plugin.comfy_cpu_models_for_node(node)) == [ModelNeed("nudenet-320n", "model", "320n.onnx")]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("640m.onnx", "Nudenet/640m.onnx"),
        ("own/detector.onnx", "Nudenet/own/detector.onnx"),
        ("own\\detector.onnx", "Nudenet/own/detector.onnx"),
        ("../x.onnx", None),
        ("own/../../x.onnx", None),
        ("..\\x.onnx", None),
        ("/etc/x.onnx", None),
        ("", None),
        (7, None),
    ],
)
def test_another_detector_is_the_users_file(name: object, target: str | None) -> None:
    (need,) = plugin.comfy_cpu_models_for_node(PromptNode("3", "NudenetModelLoader", {"model": name}))
    assert (need.model_id, need.input, need.value, need.target) == (None, "model", name, target)
    assert "320n.onnx" in need.reason


@pytest.mark.parametrize("inputs", [{}, {"model": ["4", 0]}])
def test_a_detector_from_another_node_is_not_known_yet(inputs: dict[str, object]) -> None:
    assert list(plugin.comfy_cpu_models_for_node(PromptNode("3", "NudenetModelLoader", inputs))) == []


def test_the_entry_point() -> None:
    (info,) = [info for info in load_plugins({}).infos() if info.name == "nudenet"]
    assert info.state == "active"
    assert info.hooks == ("comfy_cpu_models", "comfy_cpu_models_for_node")
