from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes.nodes.background import BEN2_FILE, Ben2RemoveBackground
from comfy_cpu_nodes.nodes.birefnet import BiRefNetRemoveBackground, variant_file
from comfy_cpu_nodes.runtimes import RUNTIME_VARIABLE, load_onnx, read_metadata
from comfy_cpu_nodes.testing import write_ben2_stand_in
from comfy_cpu_nodes.testing_birefnet import write_birefnet_stand_in

pytest.importorskip("onnxruntime")

PHOTO = Path(__file__).parents[3] / "examples" / "astronaut.jpg"


def photo() -> np.ndarray:
    with Image.open(PHOTO) as file:
        return np.asarray(file.convert("RGB"), np.float32)[np.newaxis] / np.float32(255)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ModelTree:
    """A model tree with stand-ins for BEN2 and BiRefNet."""
    tree = ModelTree(tmp_path_factory.mktemp("models"))
    for file, write in ((BEN2_FILE, write_ben2_stand_in), (variant_file("general"), write_birefnet_stand_in)):
        path = tree.path(file)
        path.parent.mkdir(parents=True)
        write(path)
    return tree


def test_it_cuts_out_what_ben2s_stand_in_does(tree: ModelTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUNTIME_VARIABLE, "onnxruntime")  # the quicker one to load
    context = RunContext(Folders(tmp_path, tmp_path, tmp_path), tree)
    image = photo()
    with use_run(context):
        _, expected = Ben2RemoveBackground().remove_background(image)
        made, mask = BiRefNetRemoveBackground().remove_background(image, process_resolution=512)
        model = load_onnx(tree.path(variant_file("general")), name=variant_file("general"))
    assert [(i.name, str(i)) for i in model.inputs] == [("input_image", "float32 [1, 3, 1024, 1024]")]
    assert [(o.name, str(o)) for o in model.outputs] == [("output_image", "float32 [1, 1, 1024, 1024]")]
    assert made.shape == (1, *image.shape[1:3], 4)
    assert {0.0, 1.0} <= set(np.unique(mask))
    assert np.abs(mask - expected).mean() < 0.01
    assert {use.name: use.stand_in for use in context.model_uses} == {BEN2_FILE: True, variant_file("general"): True}
    told = "\n".join(context.warnings)
    assert "BiRefNet-general.onnx is a STAND-IN" in told
    assert "process_resolution 512 was not used: birefnet_onnx/BiRefNet-general.onnx takes 1024×1024 only" in told


def test_it_says_what_it_is_and_is_the_same_file_each_time(tree: ModelTree, tmp_path: Path) -> None:
    path = tree.path(variant_file("general"))
    assert read_metadata(path)["comfy_cpu.stand_in"] == "true"
    assert write_birefnet_stand_in(tmp_path / "again.onnx").read_bytes() == path.read_bytes()
