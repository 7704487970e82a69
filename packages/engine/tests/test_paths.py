"""Names of files: none leaves its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfy_cpu_core.context import Folders
from comfy_cpu_engine.paths import check_name, input_files, locate, output_prefix

BAD = [
    "", ".", "..", "/etc/passwd", "../a.png", "a/../../b.png", "a/..", "..\\a.png", "a\\b.png", "C:\\a.png", "C:a.png",
    "a\0.png", "a\n.png", "a//b.png", "a/", "./a.png", "NUL", "nul.png", "sub/COM1.txt", "x" * 256, "é" * 200,
    "/".join(["a" * 100] * 11), None, 5, ["a.png"],
]  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_name(name)


@pytest.mark.parametrize(
    "name", ["a.png", "sub/b.png", "ein Bild (1).jpg", "写真.png", "..a.png", "a..b", "nullable.png"]
)
def test_good_names(name: str) -> None:
    assert str(check_name(name)) == name


@given(st.text() | st.text("./\\ab:", max_size=8))
@example("..")
@example("a/../..")
def test_any_name_is_refused_or_stays_below(name: str) -> None:
    base = Path("/base/input")
    try:
        path = check_name(name)
    except ValueError:
        return
    assert Path(str(base / path)).resolve().is_relative_to(base)


def test_locate_follows_annotations(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp")
    assert locate("a.png", folders) == tmp_path / "input" / "a.png"
    assert locate("a.png [input]", folders) == tmp_path / "input" / "a.png"
    assert locate("sub/a.png [temp]", folders) == tmp_path / "temp" / "sub" / "a.png"
    assert locate("a.png [output]", folders) == tmp_path / "output" / "a.png"
    for name in ("../a.png [output]", "[temp]", " [output]/../x"):
        with pytest.raises(ValueError, match=r"."):
            locate(name, folders)


def test_input_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.png").touch()
    (tmp_path / "a.png").touch()
    assert input_files(Folders(tmp_path, tmp_path, tmp_path)) == ["a.png", "sub/b.png"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("out", "out"), ("a/b", "a/b"), ("a/../b", "b"), ("a\\b", "a/b"), ("./a", "a"), ("a/", "a"), ("x y", "x y")],
)
def test_output_prefix(prefix: str, expected: str) -> None:
    assert str(output_prefix(prefix)) == expected


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/tmp/x", "..\\x", "C:\\x", "a\0", "a\nb", "x" * 300])
def test_prefixes_that_lead_out(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        output_prefix(prefix)


@given(st.text("./\\ab", max_size=8))
def test_any_prefix_is_refused_or_stays_below(prefix: str) -> None:
    base = Path("/base/output")
    try:
        path = output_prefix(prefix)
    except ValueError:
        return
    assert (base / path).resolve().is_relative_to(base)
