from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_client.prepare import FileInput, _upload_name


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("a b (1).png", "a b _1_.png"),
        ("naïve.png", "naïve.png"),
        ("..", "input"),
        ("", "input"),
        ("\0\n", "_"),
    ],
)
def test_upload_names_are_safe(given_name: str, name: str) -> None:
    assert _upload_name(FileInput(given_name, b""), {}) == name


@given(st.text())
def test_any_name_becomes_one_plain_path_component(text: str) -> None:
    name = _upload_name(FileInput(text, b""), {})
    assert name
    assert PurePosixPath(name).parts == (name,)
    assert name not in {".", ".."}
    assert "\\" not in name
    assert name.isprintable()


def test_two_different_files_of_one_name_are_kept_apart() -> None:
    taken = {"a.png": b"one"}
    assert _upload_name(FileInput("x/a.png", b"one"), taken) == "a.png"
    other = _upload_name(FileInput("y/a.png", b"two"), taken)
    assert other != "a.png"
    assert other.startswith("a-")
    assert other.endswith(".png")


def test_a_name_is_not_given_to_a_second_file_nor_to_a_folder() -> None:
    first = _upload_name(FileInput("a.png", b"two"), {"a.png": b"one"})
    second = _upload_name(FileInput("a.png", b"two"), {"a.png": b"one", first: b"three"})
    assert second not in {"a.png", first}
    assert _upload_name(FileInput("faces", b"one"), {"faces/a.png": b"two"}) != "faces"


@given(st.dictionaries(st.sampled_from(["a", "a.png", "b", "b/c"]), st.binary(max_size=1)), st.binary(max_size=1))
def test_whatever_is_taken_an_upload_hides_no_other_file(taken: dict[str, bytes], data: bytes) -> None:
    name = _upload_name(FileInput("b", data), taken)
    assert {**taken, name: data}.items() >= taken.items()
    assert not any(other.startswith(f"{name}/") for other in taken)
