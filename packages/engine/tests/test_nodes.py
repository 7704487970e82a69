"""The node classes: what they make of their inputs beyond what their operations do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.errors import InputError, NodeError, UsageError
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_engine.nodes import NODE_CLASSES
from comfy_cpu_engine.nodes.image import ImageInvert, ImageScale
from comfy_cpu_engine.nodes.load import LoadImage, LoadImageMask
from comfy_cpu_engine.nodes.mask import ImageToMask, InvertMask, MaskToImage
from comfy_cpu_engine.nodes.save import PreviewImage, SaveImage


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape, dtype=np.float32)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunContext]:
    folders = Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    for folder in (folders.input, folders.output, folders.temp):
        folder.mkdir()
    with use_run(RunContext(folders, ModelTree(tmp_path))) as context:
        yield context


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(0, 0, (9, 6)), (18, 0, (18, 12)), (0, 2, (3, 2)), (0, 1, (2, 1)), (1, 0, (1, 1)), (4, 4, (4, 4))],
)
def test_scale_keeps_the_aspect_for_0(width: int, height: int, expected: tuple[int, int]) -> None:
    (made,) = ImageScale().upscale(noise(1, 6, 9, 3), "area", width, height, "disabled")
    assert (made.shape[2], made.shape[1]) == expected


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 5000, 1, 3), (1, 1, 5000, 4)])
@pytest.mark.parametrize("method", ImageScale.upscale_methods)
@pytest.mark.parametrize("crop", ImageScale.crop_methods)
def test_scale_of_thin_images(shape: tuple[int, ...], method: str, crop: str) -> None:
    (made,) = ImageScale().upscale(noise(*shape), method, 16, 16, crop)
    assert made.shape == (1, 16, 16, shape[3])


def test_masks_and_images() -> None:
    mask = noise(2, 4, 5)
    (image,) = MaskToImage().mask_to_image(mask)
    assert image.shape == (2, 4, 5, 3)
    for channel in ("red", "green", "blue"):
        assert np.array_equal(ImageToMask().image_to_mask(image, channel)[0], mask)
    with pytest.raises(ValueError, match="no alpha channel: it has 3"):
        ImageToMask().image_to_mask(image, "alpha")
    assert np.allclose(InvertMask().invert(mask)[0] + mask, 1)
    assert MaskToImage().mask_to_image(mask[0])[0].shape == (1, 4, 5, 3)


@pytest.mark.parametrize("value", ["photo.png", None, noise(3, 4), np.zeros((0, 4, 4, 3), np.float32)])
def test_what_is_no_image(value: Any) -> None:
    with pytest.raises(NodeError, match="image"):
        ImageInvert().invert(value)


def test_load_lists_the_files_of_the_run(run: RunContext) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        (run.folders.input / name).touch()
    (run.folders.input / "sub").mkdir()
    (run.folders.input / "sub" / "c.png").touch()
    assert LoadImage.INPUT_TYPES()["required"]["image"][0] == ["a.jpg", "b.png"]
    assert LoadImageMask.INPUT_TYPES()["required"]["image"][0] == ["a.jpg", "b.png", "notes.txt"]


def test_load_outside_a_run() -> None:
    assert LoadImage.INPUT_TYPES()["required"]["image"][0] == []
    with pytest.raises(UsageError, match="no run"):
        LoadImage().load_image("a.png")


def test_load_validates_its_file(run: RunContext) -> None:
    (run.folders.input / "a.png").touch()
    assert LoadImage.VALIDATE_INPUTS("a.png") is True
    assert LoadImage.VALIDATE_INPUTS(None) is True, "linked"
    for name in ("b.png", "../a.png", "", 5, "sub"):
        answer = LoadImage.VALIDATE_INPUTS(name)
        assert isinstance(answer, str)
        assert answer.startswith("Invalid image file: ")
    with pytest.raises(InputError, match=r"b\.png"):
        LoadImage().load_image("b.png")


def test_a_long_list_of_files_is_cut_short(run: RunContext) -> None:
    for number in range(30):
        (run.folders.input / f"{number:02}.png").touch()
    answer = LoadImage.VALIDATE_INPUTS("a.png")
    assert isinstance(answer, str)
    assert "09.png and 20 more" in answer


def test_is_changed_is_the_file_s_hash(run: RunContext) -> None:
    file = run.folders.input / "a.png"
    file.write_bytes(b"one")
    one = LoadImage.IS_CHANGED("a.png")
    assert LoadImageMask.IS_CHANGED("a.png", "red") == one
    file.write_bytes(b"two")
    assert LoadImage.IS_CHANGED("a.png") != one


def test_load_gives_image_and_mask(run: RunContext) -> None:
    Image.new("RGBA", (3, 2), (255, 0, 0, 51)).save(run.folders.input / "a.png")
    image, mask = LoadImage().load_image("a.png")
    assert image[0, 0, 0].tolist() == [1, 0, 0]
    assert mask == pytest.approx(np.full((1, 2, 3), 0.8))
    assert LoadImageMask().load_image("a.png", "red")[0].shape == (1, 2, 3)


def saved(node: SaveImage, *arguments: Any, **options: Any) -> list[str]:
    shown = node.save_images(*arguments, **options)["ui"]["images"]
    return ["/".join(filter(None, (item["type"], item["subfolder"], item["filename"]))) for item in shown]


def test_save_counts_on(run: RunContext) -> None:
    assert saved(SaveImage(), noise(2, 2, 2, 3)) == ["output/ComfyUI_00001_.png", "output/ComfyUI_00002_.png"]
    assert saved(SaveImage(), noise(1, 2, 2, 3)) == ["output/ComfyUI_00003_.png"]
    assert saved(SaveImage(), noise(1, 2, 2, 3), "other") == ["output/other_00001_.png"]
    (run.folders.output / "ComfyUI_00041_.png").touch()
    (run.folders.output / "ComfyUI_notes_.png").touch()
    (run.folders.output / "ComfyUI2_00099_.png").touch()
    assert saved(SaveImage(), noise(1, 2, 2, 3)) == ["output/ComfyUI_00042_.png"]


def test_save_into_a_subfolder(run: RunContext) -> None:
    assert saved(SaveImage(), noise(1, 2, 2, 3), "a/b/c") == ["output/a/b/c_00001_.png"]
    assert (run.folders.output / "a" / "b" / "c_00001_.png").is_file()
    with pytest.raises(InputError, match="filename_prefix"):
        SaveImage().save_images(noise(1, 2, 2, 3), "../x")


def test_save_fills_in(run: RunContext) -> None:
    year = str(time.localtime().tm_year)
    (name,) = saved(SaveImage(), noise(1, 2, 5, 3), "%width%x%height%-%year%-%odd%")
    assert name == f"output/5x2-{year}-%odd%_00001_.png"
    assert saved(SaveImage(), noise(2, 2, 2, 3), "b%batch_num%") == ["output/b0_00001_.png", "output/b1_00002_.png"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_save_cuts_off(channels: int, mode: str, run: RunContext) -> None:
    image = noise(1, 4, 5, channels)
    SaveImage().save_images(image, "x")
    with Image.open(run.folders.output / "x_00001_.png") as picture:
        assert (picture.mode, picture.size, picture.info) == (mode, (5, 4), {})
        assert np.array_equal(np.asarray(picture).reshape(4, 5, channels), (image[0] * 255).astype(np.uint8))


def test_preview_goes_to_temp_under_a_new_name(run: RunContext) -> None:
    names = {name for _ in range(3) for name in saved(PreviewImage(), noise(1, 2, 2, 3))}
    assert len(names) == 3
    for name in names:
        assert name.startswith("temp/ComfyUI_temp_")
        assert name.endswith("_00001_.png")
    assert list(run.folders.output.iterdir()) == []


def test_save_outside_a_run() -> None:
    with pytest.raises(UsageError, match="no run"):
        SaveImage().save_images(noise(1, 2, 2, 3))


def test_every_class_is_documented() -> None:
    for made in NODE_CLASSES:
        assert made.cls.__doc__, made.class_type
        assert made.cls.__module__.startswith("comfy_cpu_engine.nodes.")
