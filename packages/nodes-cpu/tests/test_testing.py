from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from comfy_cpu_nodes.runtimes import RUNTIME_VARIABLE, load_onnx, read_metadata, release_models
from comfy_cpu_nodes.testing import write_ben2_stand_in

pytest.importorskip("onnxruntime")

Picture = np.ndarray


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ben2_stand_in(tmp_path_factory.mktemp("stand-in") / "BEN2_Base.onnx")


def bust(x: float = 0.5, size: float = 1.0) -> tuple[Picture, np.ndarray]:
    """Somebody in red before a blue and green wall, and where that is."""
    along = (np.arange(1024, dtype=np.float32) + 0.5) / 1024
    across, down = np.meshgrid(along, along)
    head = (across - x) ** 2 + (down - 0.35) ** 2 < (0.15 * size) ** 2
    body = ((across - x) / (0.34 * size)) ** 2 + ((down - 1.0) / 0.48) ** 2 < 1
    inside = head | body
    noise = np.random.default_rng(0).normal(0, 0.03, (3, 1024, 1024))
    wall = np.stack([0.1 + 0 * down, 0.3 + 0.3 * across, 0.6 + 0 * down])
    picture = np.where(inside, np.array([0.8, 0.15, 0.1]).reshape(3, 1, 1), wall) + noise
    return np.clip(picture, 0, 1).astype(np.float32)[None], inside


@pytest.fixture(params=["openvino", "onnxruntime"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip(request.param)
    monkeypatch.setenv(RUNTIME_VARIABLE, request.param)
    return str(request.param)


def test_it_has_the_inputs_and_outputs_of_ben2_and_says_what_it_is(stand_in: Path, runtime: str) -> None:
    model = load_onnx(stand_in, name="ben2_onnx/BEN2_Base.onnx")
    assert [(i.name, str(i)) for i in model.inputs] == [("input", "float32 [1, 3, 1024, 1024]")]
    assert [str(o) for o in model.outputs] == ["float16 [1, 1, 1024, 1024]"]
    assert model.stand_in
    assert model.precision == "f32"
    assert stand_in.stat().st_size < 3_000_000
    assert read_metadata(stand_in)["comfy_cpu.stand_in"] == "true"


@pytest.mark.parametrize("place", [(0.5, 1.0), (0.42, 0.9), (0.58, 1.1)])
def test_it_cuts_out_what_stands_in_the_middle(stand_in: Path, runtime: str, place: tuple[float, float]) -> None:
    picture, inside = bust(*place)
    mask = load_onnx(stand_in, name="m").run({"input": picture})["output"][0, 0].astype(np.float32)
    assert 0 <= mask.min() <= mask.max() <= 1
    found = mask > 0.5
    assert found[inside].mean() > 0.98  # all of the subject
    assert found[~inside].mean() < 0.35  # with some of the wall beside the neck
    assert not found[:80].any()  # what is above the head is free


def test_both_runtimes_give_the_same_mask(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    picture, _ = bust()
    masks = []
    for runtime in ("openvino", "onnxruntime", "openvino"):
        monkeypatch.setenv(RUNTIME_VARIABLE, runtime)
        release_models(aggressive=True)
        masks.append(load_onnx(stand_in, name="m").run({"input": picture})["output"].astype(np.float32))
    assert np.abs(masks[0] - masks[1]).mean() < 1 / 255
    np.testing.assert_array_equal(masks[0], masks[2])


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_empty_picture_gives_numbers(stand_in: Path, runtime: str, value: float) -> None:
    picture = np.full((1, 3, 1024, 1024), value, np.float32)
    mask = load_onnx(stand_in, name="m").run({"input": picture})["output"]
    assert np.isfinite(mask).all()


def test_two_stand_ins_are_the_same_file(stand_in: Path, tmp_path: Path) -> None:
    assert write_ben2_stand_in(tmp_path / "again.onnx").read_bytes() == stand_in.read_bytes()
