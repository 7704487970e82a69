"""What a careless user hands over: each gives one clear line, the right exit code, and no traceback."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_cpu_core.records import Record, RecordedFile, write_record
from comfy_cpu_core.tree import ModelTree

PROMPT: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {"class_type": "ImageScale", "inputs": {
        "image": ["1", 0], "upscale_method": "bilinear", "width": 8, "height": 8, "crop": "disabled",
    }},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "out"}},
}  # fmt: skip


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    prompt = copy.deepcopy(PROMPT)
    change(prompt)
    return json.dumps(prompt).encode()


def set_input(node: str, name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda prompt: prompt[node]["inputs"].__setitem__(name, value)


def png_bomb() -> bytes:
    """A PNG whose header promises 60,000 by 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def picture(directory: Path, name: str = "photo.png", mode: str = "RGB", size: tuple[int, int] = (32, 24)) -> Path:
    path = directory / name
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


WORKFLOWS = {
    "not-json": (b"{ this is no JSON", "JSON"),
    "not-text": (b"\xff\xfe\x00\x01binary", ""),
    "neither-format": (b'{"hello": "world"}', "format"),
    "a-list": (b"[1, 2, 3]", "format"),
    "empty": (b"{}", "empty"),
    "empty-file": (b"", ""),
    "empty-ui": (b'{"nodes": [], "links": [], "version": 0.4}', "empty"),
    "no-class-type": (b'{"1": {"inputs": {}}}', "1"),
    "link-to-a-missing-node": (changed(set_input("2", "image", ["99", 0])), "99"),
    "link-to-a-missing-output": (changed(set_input("2", "image", ["1", 7])), "2"),
    "link-of-the-wrong-type": (changed(set_input("3", "images", ["1", 1])), "MASK"),
    "cycle": (changed(set_input("2", "image", ["2", 0])), "depends on itself"),
    "unknown-class-type": (changed(lambda p: p["2"].__setitem__("class_type", "KSampler")), "KSampler"),
    "missing-required-input": (changed(lambda p: p["2"]["inputs"].pop("width")), "width"),
    "wrong-type": (changed(set_input("2", "width", "wide")), "width"),
    "option-not-in-the-list": (changed(set_input("2", "upscale_method", "magic")), "magic"),
    "number-out-of-range": (changed(set_input("2", "width", 100_000)), "100000"),
    "negative-number": (changed(set_input("2", "height", -1)), "-1"),
    "no-output-node": (changed(lambda p: p.pop("3")), "output"),
}


def assert_one_clear_line(answer: Any, code: int, needle: str) -> None:
    assert answer.code == code, answer.err
    assert "Traceback" not in answer.err + answer.out
    lines = answer.error_lines()
    assert len(lines) == 1, answer.err
    assert needle.lower() in lines[0].lower(), lines[0]


@pytest.mark.parametrize("case", WORKFLOWS)
def test_bad_workflows(case: str, cli: Any, tmp_path: Path) -> None:
    text, needle = WORKFLOWS[case]
    workflow = tmp_path / "workflow.json"
    workflow.write_bytes(text)
    photo = picture(tmp_path)
    inputs = ("--input", f"1.image={photo}") if b'"LoadImage"' in text else ()
    assert_one_clear_line(cli("run", workflow, *inputs), 3, needle)


def test_missing_workflow(cli: Any, tmp_path: Path) -> None:
    assert_one_clear_line(cli("run", tmp_path / "nowhere.json"), 3, "nowhere.json")


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(PROMPT))
    return path


def jpeg_cut_in_half(directory: Path) -> Path:
    path = directory / "half.jpg"
    picture(directory, "whole.jpg", size=(640, 480))
    path.write_bytes((directory / "whole.jpg").read_bytes()[:20_000])
    return path


def file_with(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(directory: Path) -> Path:
        (directory / name).write_bytes(data)
        return directory / name

    return make


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "nowhere.png", "nowhere.png"),
    "a-directory": (lambda d: d, "directory"),
    "empty": (file_with("empty.png", b""), "empty.png"),
    "no-image": (file_with("notes.png", b"these are my notes"), "notes.png"),
    "truncated": (jpeg_cut_in_half, "half.jpg"),
    "bomb": (file_with("bomb.png", png_bomb()), "bomb.png"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_pictures(case: str, cli: Any, workflow: Path, tmp_path: Path) -> None:
    make, needle = FILES[case]
    assert_one_clear_line(cli("run", workflow, "--input", f"1.image={make(tmp_path)}"), 3, needle)


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("one.png", "RGB", (1, 1)),
        ("thin.png", "RGB", (1, 5000)),
        ("grey.png", "L", (32, 24)),
        ("grey-alpha.png", "LA", (32, 24)),
        ("palette.png", "P", (32, 24)),
        ("bits.png", "1", (32, 24)),
        ("sixteen.png", "I;16", (32, 24)),
        ("cmyk.jpg", "CMYK", (32, 24)),
        ("alpha.png", "RGBA", (32, 24)),
    ],
)
def test_odd_but_good_pictures(
    name: str, mode: str, size: tuple[int, int], cli: Any, workflow: Path, tmp_path: Path
) -> None:
    if mode == "I;16":
        path = tmp_path / name
        Image.fromarray(np.arange(32 * 24, dtype=np.uint16).reshape(24, 32) * 80).save(path)
    else:
        path = picture(tmp_path, name, mode, size)
    answer = cli("run", workflow, "--input", f"1.image={path}", "--output", tmp_path / "out")
    assert answer.code == 0, answer.err
    (made,) = (tmp_path / "out").iterdir()
    assert size_of(made) == (8, 8)


def test_exif_rotation_is_applied(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (40, 10), "red").save(path, exif=exif)
    prompt = {
        "1": PROMPT["1"],
        "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "out"}},
    }
    workflow = tmp_path / "workflow.json"
    workflow.write_text(json.dumps(prompt))
    answer = cli("run", workflow, "--input", f"1.image={path}", "--output", tmp_path / "out")
    assert answer.code == 0, answer.err
    (made,) = (tmp_path / "out").iterdir()
    assert size_of(made) == (10, 40)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "..\\secret.png", "a/../../secret.png"])
def test_picture_names_that_leave_the_input_directory(name: str, cli: Any, tmp_path: Path) -> None:
    picture(tmp_path, "secret.png")
    workflow = tmp_path / "workflow.json"
    workflow.write_bytes(changed(set_input("1", "image", name)))
    assert_one_clear_line(cli("run", workflow), 3, "1")


def test_a_missing_picture_names_the_input(cli: Any, workflow: Path) -> None:
    answer = cli("run", workflow)
    assert_one_clear_line(answer, 3, "photo.png")
    assert "--input" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "needle"),
    [
        (("--set", "2.width"), 2, "2.width"),
        (("--set", "width=3"), 2, "width"),
        (("--set", "99.width=3"), 3, "99"),
        (("--set", "2.wide=3"), 3, "wide"),
        (("--input", "1.image"), 2, "1.image"),
        (("--target", "mars://1"), 2, "mars"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], code: int, needle: str, cli: Any, workflow: Path) -> None:
    assert_one_clear_line(cli("run", workflow, *arguments), code, needle)


BEN2_BYTES = 222_932_053

BEN2_PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "4": {"class_type": "BEN2_ONNX_RemoveBg", "inputs": {"image": ["1", 0], "provider": "CPU"}},
    "9": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
}


@pytest.fixture
def ben2_workflow(tmp_path: Path) -> Path:
    path = tmp_path / "ben2.json"
    path.write_text(json.dumps(BEN2_PROMPT))
    return path


def test_a_missing_model_names_the_command_that_fetches_it(cli: Any, ben2_workflow: Path, tmp_path: Path) -> None:
    photo = picture(tmp_path)
    answer = cli("run", ben2_workflow, "--input", f"1.image={photo}", "--models", tmp_path / "models")
    assert_one_clear_line(answer, 4, "BEN2_Base.onnx")
    assert "models fetch" in answer.err


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_a_truncated_model(keep: float, cli: Any, ben2_workflow: Path, stand_in_models: Path, tmp_path: Path) -> None:
    photo = picture(tmp_path)
    data = (stand_in_models / "ben2_onnx" / "BEN2_Base.onnx").read_bytes()
    cut = tmp_path / "models" / "ben2_onnx" / "BEN2_Base.onnx"
    cut.parent.mkdir(parents=True)
    cut.write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    answer = cli("run", ben2_workflow, "--input", f"1.image={photo}", "--models", tmp_path / "models")
    assert_one_clear_line(answer, 4, "BEN2_Base.onnx")


def test_a_model_with_another_hash_than_it_was_fetched_with(
    cli: Any, ben2_workflow: Path, stand_in_models: Path, tmp_path: Path
) -> None:
    model = tmp_path / "models" / "ben2_onnx" / "BEN2_Base.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes((stand_in_models / "ben2_onnx" / "BEN2_Base.onnx").read_bytes())
    # As if another file of the real one's size had been fetched.
    with model.open("ab") as file:
        file.truncate(BEN2_BYTES)
    fetched = RecordedFile("BEN2_Base.onnx", BEN2_BYTES, "0" * 64)
    files = {"ben2_onnx/BEN2_Base.onnx": fetched}
    record = Record("ben2-base", "hf:PramaLLC/BEN2", None, "c0ffee", "2026-01-01T00:00:00+00:00", files)
    write_record(ModelTree(tmp_path / "models"), record)
    photo = picture(tmp_path)
    answer = cli("run", ben2_workflow, "--input", f"1.image={photo}", "--models", tmp_path / "models")
    assert_one_clear_line(answer, 4, "sha256")
    assert "models fetch ben2-base --force" in answer.err


def test_nothing_is_written_after_an_error(cli: Any, workflow: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    cli("run", workflow, "--input", f"1.image={bad}", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
