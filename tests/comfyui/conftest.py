"""One real ComfyUI for all tests here, with the pack installed the way a user does it.

Runs with ``hatch run comfyui:test`` where COMFYUI_PATH names a checkout (and COMFYUI_PYTHON its interpreter); elsewhere
every test is skipped, and says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from comfyui_server import EXTRAS, Checkout, Server, Workbench

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PHOTO = ROOT / "examples" / "astronaut.jpg"

# Says which modules ComfyUI's process has loaded.
PROBE = """
import sys


class LoadedModules:
    CATEGORY = "test"
    FUNCTION = "look"
    OUTPUT_NODE = True
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    def look(self):
        return {"ui": {"modules": sorted({name.partition(".")[0] for name in sys.modules})}}


NODE_CLASS_MAPPINGS = {"LoadedModules": LoadedModules}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = ""
    if not os.environ.get("COMFYUI_PATH"):
        reason = "no ComfyUI to test against: set COMFYUI_PATH to a checkout (and COMFYUI_PYTHON to its Python)"
    elif os.environ.get("PYTEST_XDIST_WORKER"):
        reason = "starts one ComfyUI for all of its tests, which takes a minute: `hatch run comfyui:test`"
    for item in items:
        if reason and HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def checkout() -> Checkout:
    return Checkout.of_environment()


@pytest.fixture(scope="session")
def same_versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Has pip install the libraries that the engine uses here: the same bytes need the same library."""
    constraints = tmp_path_factory.mktemp("pip") / "constraints.txt"
    names = {"openvino": "openvino", "llama": "llama-cpp-python"}
    constraints.write_text("".join(f"{names[e]}=={metadata.version(names[e])}\n" for e in EXTRAS))
    return {"PIP_CONSTRAINT": str(constraints)}


@dataclass(frozen=True)
class Before:
    """What the checkout was when the tests began."""

    files: dict[str, float]
    distributions: dict[str, str]


@pytest.fixture(scope="session")
def before(checkout: Checkout) -> Before:
    return Before(checkout.files(), checkout.distributions())


@pytest.fixture(scope="session")
def model_tree(stand_in_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the engine gets: stand-ins for BEN2 and BiRefNet, and NudeNet's real weights."""
    from comfy_cpu_core.fetchers.package import package_file
    from comfy_cpu_nodes.testing_birefnet import write_birefnet_stand_in

    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(stand_in_models, tree, dirs_exist_ok=True)
    weights = package_file("nudenet", "320n.onnx")
    assert weights is not None, "the tests' environment installs the plugin nudenet with its weights"
    (tree / "Nudenet").mkdir()
    shutil.copy(weights, tree / "Nudenet")
    (tree / "birefnet_onnx").mkdir()
    write_birefnet_stand_in(tree / "birefnet_onnx" / "BiRefNet-general.onnx")
    return tree


@pytest.fixture(scope="session")
def workbench(
    checkout: Checkout,
    before: Before,
    same_versions: dict[str, str],
    model_tree: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Workbench:
    """A ComfyUI with the pack installed; BEN2 lies where only its extra_model_paths.yaml finds it."""
    bench = Workbench(checkout, tmp_path_factory.mktemp("bench") / "ComfyUI")
    bench.install(*(word for extra in EXTRAS for word in ("--extra", extra)), **same_versions)
    shutil.copytree(model_tree, bench.root / "models", dirs_exist_ok=True)
    (bench.root / "disk").mkdir()
    (bench.root / "models" / "ben2_onnx").rename(bench.root / "disk" / "cutters")
    (bench.root / "disk.yaml").write_text(
        f"disk:\n  base_path: {bench.root}/disk\n  ben2_onnx: cutters\n  llm: words\n"
    )
    (bench.root / "custom_nodes" / "probe.py").write_text(PROBE)
    return bench


@pytest.fixture(scope="session")
def server(workbench: Workbench) -> Iterator[Server]:
    with workbench.serve("--extra-model-paths-config", workbench.root / "disk.yaml") as started:
        yield started


@pytest.fixture(scope="session")
def object_info(server: Server) -> dict[str, Any]:
    return dict(server.get("/object_info"))


@pytest.fixture(scope="session")
def photo(workbench: Workbench) -> str:
    """The example photo, as LoadImage knows it."""
    shutil.copy(PHOTO, workbench.root / "input")
    return PHOTO.name
