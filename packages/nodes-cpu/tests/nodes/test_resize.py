from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import Interrupted, NodeError
from comfy_cpu_core.results import Progress
from comfy_cpu_nodes.nodes import resize as nodes


def noise(width: int, height: int, *, batch: int = 1, channels: int = 3) -> np.ndarray:
    levels = np.random.default_rng(width + height).integers(0, 256, (batch, height, width, channels))
    return levels.astype(np.float32) / np.float32(255)


def size(image: np.ndarray) -> tuple[int, int]:
    assert image.dtype == np.float32
    return image.shape[2], image.shape[1]


def reference(image: np.ndarray, target: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """What the nodes have to give: truncate to 8 bits, PIL, divide by 255."""
    frames = [Image.fromarray(np.squeeze((frame * 255).astype(np.uint8))).resize(target, resample) for frame in image]
    return np.stack([np.asarray(frame).astype(np.float32) / 255.0 for frame in frames])


@pytest.mark.parametrize("channels", [3, 4])
def test_smart_resize_and_back(channels: int) -> None:
    image = noise(60, 90, batch=2, channels=channels)
    resized, width, height = nodes.SmartResizeForModel().smart_resize(image, "1024 (BEN2/BiRefNet)", "smart", "bicubic")
    assert (width, height) == (60, 90)
    assert size(resized) == (836, 1254)
    assert np.array_equal(resized, reference(image, (836, 1254), Image.Resampling.BICUBIC))
    (back,) = nodes.RestoreOriginalSize().restore_size(resized, width, height)
    assert np.array_equal(back, reference(resized, (60, 90), Image.Resampling.LANCZOS))


@pytest.mark.parametrize(
    ("width", "mode", "touched"),
    [
        (1024, "smart", False),
        (1000, "smart", False),
        (960, "smart", True),
        (960, "only_if_needed", False),
        (1000, "always_resize", True),
    ],
)
def test_a_size_that_will_do_is_passed_on_untouched(width: int, mode: str, touched: bool) -> None:
    image = noise(width, 1024)
    resized, *original = nodes.SmartResizeForModel().smart_resize(image, "1024 (BEN2/BiRefNet)", mode)
    assert (resized is not image) is touched
    assert original == [width, 1024]


def test_a_strip_of_one_pixel() -> None:
    resized, *original = nodes.SmartResizeForModel().smart_resize(noise(1, 5000), "1024 (BEN2/BiRefNet)")
    assert original == [1, 5000]
    (back,) = nodes.RestoreOriginalSize().restore_size(resized, *original)
    assert size(back) == (1, 5000)


@pytest.mark.parametrize("wrong", [(0, 10), (10, -1)])
def test_restore_to_no_size(wrong: tuple[int, int]) -> None:
    with pytest.raises(NodeError, match="cannot be"):
        nodes.RestoreOriginalSize().restore_size(noise(4, 4), *wrong)


@pytest.mark.parametrize(
    ("mode", "source", "expected"),
    [
        ("stretch", (30, 20), (512, 512)),
        ("fit", (1000, 500), (512, 256)),
        ("fit", (30, 20), (30, 20)),
        ("fill", (30, 20), (512, 512)),
        ("fill", (1, 700), (512, 512)),
    ],
)
def test_for_processing(mode: str, source: tuple[int, int], expected: tuple[int, int]) -> None:
    node = nodes.ImageResizeForProcessing()
    (made,) = node.resize_image(noise(*source, batch=2), "512", resize_mode=mode)
    assert size(made) == expected
    assert len(made) == 2


def test_for_processing_fit_is_pils_thumbnail() -> None:
    image = noise(1001, 700)
    expected = Image.fromarray((image[0] * 255).astype(np.uint8))
    expected.thumbnail((512, 512), Image.Resampling.BILINEAR)
    (made,) = nodes.ImageResizeForProcessing().resize_image(image, "512")
    assert np.array_equal(made[0], np.asarray(expected).astype(np.float32) / 255.0)


def test_for_processing_custom() -> None:
    node = nodes.ImageResizeForProcessing()
    image = noise(20, 20)
    (made,) = node.resize_image(image, "custom", custom_width=64, custom_height=128, resize_mode="stretch")
    assert np.array_equal(made, reference(image, (64, 128), Image.Resampling.BILINEAR))
    square = noise(512, 512)
    assert node.resize_image(square, "512", resize_mode="fill")[0] is square


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, (30, 20)),
        ({"reference_image": noise(7, 9, batch=3)}, (7, 9)),
        ({"scale_mode": "scale_factor", "scale_factor": 1.5}, (45, 30)),
        ({"scale_mode": "scale_factor", "scale_factor": 0.1}, (3, 2)),
        ({"scale_mode": "dimensions", "target_width": 64, "target_height": 128}, (64, 128)),
    ],
)
def test_to_reference(inputs: dict[str, Any], expected: tuple[int, int]) -> None:
    (made,) = nodes.ImageResizeToReference().resize_to_reference(noise(30, 20, batch=2), **inputs)
    assert size(made) == expected
    assert len(made) == 2


def test_a_bad_reference_is_named() -> None:
    with pytest.raises(NodeError, match="reference_image"):
        nodes.ImageResizeToReference().resize_to_reference(noise(3, 3), reference_image=np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("factor", "expected"), [("0.25x", (2, 1)), ("0.75x", (8, 3)), ("1.25x", (13, 6)), ("4x", (44, 20))]
)
def test_by_factor(factor: str, expected: tuple[int, int]) -> None:
    image = noise(11, 5, channels=4)
    (made,) = nodes.ImageScaleByFactor().scale_image(image, factor, "nearest")
    assert np.array_equal(made, reference(image, expected, Image.Resampling.NEAREST))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_kept(channels: int) -> None:
    (made,) = nodes.ImageScaleByFactor().scale_image(noise(5, 4, batch=3, channels=channels), "2x")
    assert made.shape == (3, 8, 10, channels)


SCALED: dict[str, Callable[[Any], Any]] = {
    "smart": lambda image: nodes.SmartResizeForModel().smart_resize(image),
    "restore": lambda image: nodes.RestoreOriginalSize().restore_size(image, 5, 5),
    "processing": lambda image: nodes.ImageResizeForProcessing().resize_image(image),
    "reference": lambda image: nodes.ImageResizeToReference().resize_to_reference(image),
    "factor": lambda image: nodes.ImageScaleByFactor().scale_image(image),
}


@pytest.mark.parametrize("node", SCALED)
@pytest.mark.parametrize(
    "image", [np.zeros((0, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.float32), None, "photo.png"]
)
def test_what_is_no_image_is_an_error(node: str, image: Any) -> None:
    with pytest.raises(NodeError, match="image"):
        SCALED[node](image)


@pytest.mark.parametrize(
    "call",
    [
        lambda: nodes.ImageResizeForProcessing().resize_image(noise(3, 3), resize_mode="shrink"),
        lambda: nodes.ImageResizeToReference().resize_to_reference(noise(3, 3), scale_mode="shrink"),
    ],
)
def test_an_unknown_mode_is_an_error(call: Callable[[], Any]) -> None:
    with pytest.raises(NodeError, match="'shrink'"):
        call()


def test_progress_per_frame_and_an_interrupt_ends_it(run: RunContext, events: list[Progress]) -> None:
    def stop_after_two() -> None:
        if len(events) == 2:
            raise Interrupted("stopped")

    run.check = stop_after_two
    with pytest.raises(Interrupted):
        nodes.ImageScaleByFactor().scale_image(noise(4, 4, batch=5), "2x")
    assert [(event.kind, event.node_id, event.value, event.total) for event in events] == [
        ("step", "4", 1, 5),
        ("step", "4", 2, 5),
    ]
