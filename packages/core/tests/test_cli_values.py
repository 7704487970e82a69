"""Parsing NODE.INPUT=…"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.cli.values import parse_input_files, parse_set
from comfy_cpu_core.errors import UsageError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("4.provider=CPU", "4.provider", "CPU"),
        ("4.sensitivity=0.8", "4.sensitivity", 0.8),
        ("4.mask_blur=2", "4.mask_blur", 2),
        ("4.on=true", "4.on", True),
        ("4.on=True", "4.on", "True"),
        ('4.text="true"', "4.text", "true"),
        ("4.text=a=b", "4.text", "a=b"),
        ("4.text=", "4.text", ""),
        ("4.text= x ", "4.text", " x "),
        ("4.text=007", "4.text", "007"),
        ("4.text={broken", "4.text", "{broken"),
        ("4.text=NaN", "4.text", "NaN"),
        ("4.text=-Infinity", "4.text", "-Infinity"),
        ("4.list=[1, 2]", "4.list", [1, 2]),
        ("4.none=null", "4.none", None),
        ("1:2.seed=7", "1:2.seed", 7),
        ("4.size.width=7", "4.size.width", 7),
        (" 4.x =1", "4.x", 1),
        ("4.deep=" + "[" * 100_000, "4.deep", "[" * 100_000),
    ],
)
def test_parse_set(argument: str, key: str, value: Any) -> None:
    (found,) = parse_set((argument,)).items()
    assert found == (key, value)
    assert type(found[1]) is type(value)


@given(value=values)
def test_json_is_read_as_json(value: Any) -> None:
    assert parse_set([f"1.x={json.dumps(value)}"]) == {"1.x": value}


def test_order_is_kept() -> None:
    assert list(parse_set(["4.b=1", "4.a=2"])) == ["4.b", "4.a"]
    assert parse_set([]) == {}


@pytest.mark.parametrize("argument", ["", "4", "4.x", "x=1", "=1", ".x=1", "4.=1", "4=.x"])
def test_what_names_no_input(argument: str) -> None:
    with pytest.raises(UsageError, match=f"--set '{argument}' is not NODE.INPUT=JSON") as caught:
        parse_set([argument])
    assert caught.value.remedy == "write it like --set 4.sensitivity=0.8"
    with pytest.raises(UsageError, match=f"--input '{argument}' is not NODE.INPUT=FILE") as caught:
        parse_input_files([argument])
    assert caught.value.remedy == "write it like --input 1.image=photo.jpg"


def test_twice() -> None:
    with pytest.raises(UsageError, match=r"--set gives 4\.x twice"):
        parse_set(["4.x=1", "4.x=1"])
    with pytest.raises(UsageError, match=r"--input gives 1\.image twice"):
        parse_input_files(["1.image=a.png", "1.image=b.png"])


def test_parse_input_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = parse_input_files(["1.image=photo.jpg", "2.mask=~/a b=c.png", "3.x=~nobody-of-that-name/y"])
    assert found == {
        "1.image": Path("photo.jpg"),
        "2.mask": Path("/home/me/a b=c.png"),
        "3.x": Path("~nobody-of-that-name/y"),
    }


def test_no_file() -> None:
    with pytest.raises(UsageError, match=r"--input 1\.image= names no file"):
        parse_input_files(["1.image="])
