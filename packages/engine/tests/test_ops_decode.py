"""Reading image files: every kind, and every way in which they are broken."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from comfy_cpu_core.errors import InputError
from comfy_cpu_engine.ops import decode
from comfy_cpu_engine.ops.decode import Decoded, read_channel, read_image

PIXELS = np.random.default_rng(3).integers(0, 256, (24, 32, 4), dtype=np.uint8)
RGB, RGBA = Image.fromarray(PIXELS[..., :3]), Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Decoded]:
    def run(data: bytes) -> Decoded:
        (tmp_path / "picture").write_bytes(data)
        return read_image(tmp_path / "picture", "picture")

    return run


def close(image: np.ndarray, expected: Any) -> bool:
    return bool(np.allclose(image * 255, np.asarray(expected, np.float32), atol=0.01))


@pytest.mark.parametrize(
    ("picture", "kind", "options", "expected"),
    [
        (RGB, "PNG", {}, RGB),
        (RGB.convert("L"), "PNG", {}, RGB.convert("L").convert("RGB")),
        (RGB.convert("1"), "PNG", {}, RGB.convert("1").convert("RGB")),
        (RGB.quantize(16), "PNG", {}, RGB.quantize(16).convert("RGB")),
        (RGB.quantize(16), "GIF", {}, RGB.quantize(16).convert("RGB")),
        (RGB.convert("CMYK"), "TIFF", {}, RGB.convert("CMYK").convert("RGB")),
        (RGB, "BMP", {}, RGB),
        (RGB, "WEBP", {"lossless": True}, RGB),
        (RGB, "TIFF", {}, RGB),
        (Image.new("RGB", (1, 1), "red"), "PNG", {}, Image.new("RGB", (1, 1), "red")),
        (Image.new("RGB", (1, 5000), "red"), "PNG", {}, Image.new("RGB", (1, 5000), "red")),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_without_transparency(
    picture: Image.Image, kind: str, options: Any, expected: Image.Image, read: Callable[[bytes], Decoded]
) -> None:
    found = read(encoded(picture, kind, **options))
    assert found.image.dtype == np.float32
    assert close(found.image, np.asarray(expected)[np.newaxis])
    assert found.mask.shape == (1, 64, 64)
    assert not found.mask.any()
    assert not found.clipped


@pytest.mark.parametrize(
    ("picture", "options", "alpha"),
    [
        (RGBA, {}, PIXELS[..., 3]),
        (RGBA.convert("LA"), {}, PIXELS[..., 3]),
        (RGB.quantize(4), {"transparency": 2}, np.where(np.asarray(RGB.quantize(4)) == 2, 0, 255)),
        (
            RGB.quantize(4),
            {"transparency": bytes([0, 80, 160, 255])},
            np.array([0, 80, 160, 255])[np.asarray(RGB.quantize(4))],
        ),
    ],
    ids=["RGBA", "LA", "one colour", "palette"],
)
def test_with_transparency(picture: Image.Image, options: Any, alpha: Any, read: Callable[[bytes], Decoded]) -> None:
    found = read(encoded(picture, "PNG", **options))
    assert close(found.image, np.asarray(picture.convert("RGB"))[np.newaxis])
    assert close(1 - found.mask, alpha[np.newaxis])


def test_grey_of_16_bits_is_clipped_as_in_comfyui(read: Callable[[bytes], Decoded]) -> None:
    found = read(encoded(Image.fromarray(np.array([[0, 100, 255, 256, 65535]], np.uint16)), "PNG"))
    assert close(found.image[0, 0, :, 0], [0, 100, 255, 255, 255])
    assert found.clipped


def test_grey_of_32_bits_is_scaled(read: Callable[[bytes], Decoded]) -> None:
    found = read(encoded(Image.fromarray(np.array([[0, 255, 2550, 65025]], np.int32)), "TIFF"))
    assert close(found.image[0, 0, :, 0], [0, 1, 10, 255])
    assert not found.clipped


@pytest.mark.parametrize(("orientation", "corner"), [(1, 0), (2, 1), (3, 2), (4, 3), (5, 0), (6, 3), (7, 2), (8, 1)])
def test_exif_rotation(orientation: int, corner: int, read: Callable[[bytes], Decoded]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (6, 4))
    place = [(0, 0), (5, 0), (5, 3), (0, 3)][corner]
    picture.putpixel(place, (255, 255, 255))
    found = read(encoded(picture, "PNG", exif=exif))
    assert found.image.shape == ((1, 4, 6, 3) if orientation < 5 else (1, 6, 4, 3))
    assert found.image[0, 0, 0, 0] == 1, "the corner that was up and left in the scene"


@pytest.fixture
def frames() -> list[Image.Image]:
    return [Image.fromarray(np.random.default_rng(n).integers(0, 256, (9, 7, 3), dtype=np.uint8)) for n in range(3)]


@pytest.mark.parametrize(("kind", "count"), [("GIF", 3), ("PNG", 3), ("WEBP", 3), ("TIFF", 3), ("MPO", 1)])
def test_frames(kind: str, count: int, frames: list[Image.Image], read: Callable[[bytes], Decoded]) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert found.image.shape == (count, 9, 7, 3)
    assert len(found.mask) == count


def test_frames_of_another_size_are_left_out(frames: list[Image.Image], read: Callable[[bytes], Decoded]) -> None:
    pages = [frames[0], frames[1].resize((3, 3)), frames[2]]
    found = read(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert close(found.image, np.stack([np.asarray(frames[0]), np.asarray(frames[2])]))


def test_frames_with_and_without_alpha(frames: list[Image.Image], read: Callable[[bytes], Decoded]) -> None:
    pages = [frames[0], frames[1].convert("RGBA")]
    found = read(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert found.mask.shape == (2, 9, 7)


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", b"\x89PNG\r\n\x1a\n", bytes(100)],
    ids=["empty", "text", "EPS", "PNG's first bytes", "zeros"],
)
def test_no_image(data: bytes, read: Callable[[bytes], Decoded]) -> None:
    with pytest.raises(InputError, match="'picture' is"):
        read(data)


KINDS = {
    "PNG": encoded(RGBA, "PNG"),
    "JPEG": encoded(RGB, "JPEG"),
    "WEBP": encoded(RGB, "WEBP"),
    "TIFF": encoded(RGB, "TIFF"),
    "BMP": encoded(RGB, "BMP"),
    "GIF": encoded(RGB, "GIF"),
}


def picture_or_error(path: Path, name: str) -> Decoded | InputError:
    try:
        return read_image(path, name)
    except InputError as error:
        return error


@pytest.mark.parametrize("kind", KINDS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_an_error_or_complete(kind: str, part: float, tmp_path: Path) -> None:
    """Whatever is left of a file: what comes out of it is the whole picture or nothing."""
    path = tmp_path / "cut"
    path.write_bytes(KINDS[kind])
    whole = read_image(path, "cut")
    path.write_bytes(KINDS[kind][: int(part * len(KINDS[kind]))])
    found = picture_or_error(path, "cut")
    if isinstance(found, InputError):
        assert "'cut'" in str(found)
        assert "\n" not in str(found)
    else:
        assert np.array_equal(found.image, whole.image)
        assert np.array_equal(found.mask, whole.mask)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_a_corrupt_file_is_an_error_or_some_picture(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    changed = bytearray(KINDS[kind])
    for position in data.draw(st.lists(st.integers(0, len(changed) - 1), max_size=6)):
        changed[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "bad"
    path.write_bytes(changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = picture_or_error(path, "bad")
    if isinstance(found, InputError):
        assert "'bad'" in str(found)
    else:
        assert found.image.shape[3] == 3


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 9_000)], ids=["Pillow's error", "Pillow's warning"])
@pytest.mark.parametrize("filtered", ["error", "ignore"])
def test_a_decompression_bomb(size: tuple[int, int], filtered: Any, read: Callable[[bytes], Decoded]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(filtered)
        with pytest.raises(InputError, match="89,478,485 pixels"):
            read(bomb(*size))


def test_many_frames_are_a_bomb_too(
    frames: list[Image.Image], monkeypatch: pytest.MonkeyPatch, read: Callable[[bytes], Decoded]
) -> None:
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(decode, "MAX_PIXELS", 3 * 9 * 7)
    assert len(read(data).image) == 3
    monkeypatch.setattr(decode, "MAX_PIXELS", 3 * 9 * 7 - 1)
    with pytest.raises(InputError, match="bomb"):
        read(data)


@pytest.mark.parametrize(("channel", "index"), [("red", 0), ("green", 1), ("blue", 2)])
def test_channels(channel: str, index: int, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(RGBA, "PNG"))
    mask = read_channel(tmp_path / "a.png", "a.png", channel)
    assert close(mask, PIXELS[np.newaxis, ..., index])


def test_the_alpha_channel_is_inverted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(RGBA, "PNG"))
    assert close(1 - read_channel(tmp_path / "a.png", "a.png", "alpha"), PIXELS[np.newaxis, ..., 3])
    (tmp_path / "b.png").write_bytes(encoded(RGB, "PNG"))
    assert not read_channel(tmp_path / "b.png", "b.png", "alpha").any()


def test_a_channel_of_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"'a\.png'"):
        read_channel(tmp_path / "a.png", "a.png", "red")
