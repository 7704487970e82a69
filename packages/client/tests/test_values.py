"""What a file input may be given as."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_client import FileInput, sole_input
from comfy_cpu_client.values import read_file
from comfy_cpu_core.errors import InputError, WorkflowError
from comfy_cpu_core.workflow import load


def read(value: Any) -> FileInput:
    return read_file("input 1.image", "1.image", value)


def pixels(file: FileInput) -> np.ndarray:
    with Image.open(io.BytesIO(file.data)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_arrays_of_bytes_are_kept_to_the_bit(channels: int | None) -> None:
    shape = (7, 5) if channels is None else (7, 5, channels)
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    file = read(array)
    assert file.name == "1.image.png"
    assert np.array_equal(pixels(file), array.reshape(7, 5) if channels == 1 else array)


def test_arrays_of_floats_are_an_image_as_comfyui_has_it() -> None:
    array = np.linspace(0, 1, 4 * 3 * 3, dtype=np.float32).reshape(1, 4, 3, 3)
    assert np.array_equal(pixels(read(array)), np.round(array[0] * 255).astype(np.uint8))
    assert np.array_equal(pixels(read(np.eye(3, dtype=bool))), np.eye(3, dtype=np.uint8) * 255)


def test_a_view_and_a_big_endian_array() -> None:
    array = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)[::-2, ::-1]
    assert np.array_equal(pixels(read(array)), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((2, 2, 2, 3), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(3, np.uint8),
        np.full((2, 2, 3), 200.0),
        np.full((2, 2, 3), np.nan),
        np.zeros((2, 2, 3), np.int64),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_arrays_that_are_no_pictures(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"input 1\.image: ") as caught:
        read(array)
    assert caught.value.remedy


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_pictures_of_pillow(mode: str) -> None:
    picture = Image.new(mode, (5, 7))
    with Image.open(io.BytesIO(read(picture).data)) as image:
        assert (image.format, image.size) == ("PNG", (5, 7))


def test_which_side_of_a_picture_is_up_is_kept() -> None:
    picture = Image.new("RGB", (5, 7))
    picture.getexif()[274] = 6
    with Image.open(io.BytesIO(read(picture).data)) as image:
        assert image.getexif()[274] == 6


def test_files_bytes_and_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"jpeg")
    assert read(tmp_path / "a.jpg") == read(str(tmp_path / "a.jpg")) == FileInput("a.jpg", b"jpeg")
    assert read(b"x") == FileInput("1.image.bin", b"x")
    assert read(FileInput("n", b"x")) == FileInput("n", b"x")
    with pytest.raises(InputError, match="is a int"):
        read(7)


def workflow(*classes: str) -> Any:
    return load({str(n): {"class_type": name, "inputs": {"image": "a"}} for n, name in enumerate(classes, 1)}, {})


def test_the_only_picture_of_a_workflow() -> None:
    assert sole_input(workflow("Cut", "LoadImage")) == "2.image"
    with pytest.raises(WorkflowError, match="several") as caught:
        sole_input(workflow("LoadImage", "LoadImage"))
    assert "1.image, 2.image" in str(caught.value.remedy)
    with pytest.raises(WorkflowError, match="no LoadImage"):
        sole_input(workflow("Cut"))
