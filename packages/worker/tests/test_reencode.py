from __future__ import annotations

import io
import random
from typing import Any

import pytest
from PIL import Image, ImageChops

from comfy_cpu_core.results import Output
from comfy_cpu_worker.reencode import reencode


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 48), picture_format: str = "PNG", **more: Any) -> Output:
    noise = random.Random(1).randbytes(size[0] * size[1] * 4)
    pixels = Image.frombytes("RGBA", size, noise).resize((8, 8)).resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    (pixels if mode == "RGBA" else pixels.convert("RGB").convert(mode)).save(buffer, picture_format, **more)
    return Output(
        "9", "SaveImage", "image", "a_1.x.png", f"image/{picture_format.lower()}", buffer.getvalue(), subfolder="s"
    )


def opened(output: Output | None) -> Image.Image:
    assert output is not None
    found = Image.open(io.BytesIO(output.data))
    found.load()
    return found


@pytest.mark.parametrize(("picture_format", "suffix"), [("webp", ".webp"), ("jpeg", ".jpg")])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_pictures_without_transparency(mode: str, picture_format: Any, suffix: str) -> None:
    before = picture(mode)
    after = reencode(before, picture_format, 90)
    assert after is not None
    assert (after.filename, after.media_type, after.subfolder) == (f"a_1.x{suffix}", f"image/{picture_format}", "s")
    assert opened(after).format == picture_format.upper()
    difference = ImageChops.difference(opened(before).convert("RGB"), opened(after).convert("RGB"))
    assert max(high for _, high in difference.getextrema()) < 100  # type: ignore[misc]


def test_transparency_is_kept_whatever_was_asked_for() -> None:
    before = picture("RGBA")
    for picture_format in ("webp", "jpeg"):
        after = reencode(before, picture_format, 80)  # type: ignore[arg-type]
        assert after is not None
        assert after.media_type == "image/webp"
        assert ImageChops.difference(opened(before).getchannel("A"), opened(after).getchannel("A")).getbbox() is None


def test_an_alpha_channel_that_hides_nothing_does_not_count() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 255)).save(buffer, "PNG")
    opaque = Output("9", "SaveImage", "image", "a.png", "image/png", buffer.getvalue())
    assert opened(reencode(opaque, "jpeg", 80)).format == "JPEG"


def test_to_png() -> None:
    before = picture("RGB", picture_format="BMP")
    after = opened(reencode(before, "png", 80))
    assert ImageChops.difference(opened(before), after).getbbox() is None


def test_the_colour_profile_is_kept() -> None:
    assert opened(reencode(picture(icc_profile=b"profile"), "webp", 80)).info["icc_profile"] == b"profile"


def test_quality_counts() -> None:
    low, high = (reencode(picture(size=(256, 256)), "webp", quality) for quality in (10, 95))
    assert low is not None
    assert high is not None
    assert len(low.data) < len(high.data)


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "WEBP"])
def test_what_has_the_format_already_stays(picture_format: str) -> None:
    assert reencode(picture(picture_format=picture_format), picture_format.lower(), 80) is None  # type: ignore[arg-type]


def test_what_moves_stays() -> None:
    frames = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in (0, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    moving = Output("9", "X", "image", "a.png", "image/png", buffer.getvalue())
    assert reencode(moving, "webp", 80) is None


def test_what_has_more_bits_stays() -> None:
    buffer = io.BytesIO()
    Image.new("I;16", (8, 8), 40_000).save(buffer, "PNG")
    deep = Output("9", "X", "image", "a.png", "image/png", buffer.getvalue())
    assert reencode(deep, "webp", 80) is None


@pytest.mark.parametrize("data", [b"", b"no picture", picture().data[:100]])
def test_what_cannot_be_read_stays(data: bytes) -> None:
    assert reencode(Output("9", "X", "image", "a.png", "image/png", data), "webp", 80) is None


def test_what_is_too_wide_for_the_format_stays() -> None:
    buffer = io.BytesIO()
    Image.new("L", (17_000, 1)).save(buffer, "PNG")
    assert reencode(Output("9", "X", "image", "a.png", "image/png", buffer.getvalue()), "webp", 80) is None


def test_only_pictures() -> None:
    assert reencode(Output("9", "X", "file", "a.png", "image/png", picture().data), "webp", 80) is None
