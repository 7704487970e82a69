"""One input's value: conversion, range, options, types of connections."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.nodes import InputSpec
from comfy_cpu_engine.checks import Problem, check_value, convert_value, fits


def spec(kind: str, choices: tuple[Any, ...] | None = None, **options: Any) -> InputSpec:
    return InputSpec("x", kind, "required", choices, options)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("INT", 5, 5),
        ("INT", "5", 5),
        ("INT", " 5 ", 5),
        ("INT", 3.7, 3),
        ("INT", -3.7, -3),
        ("INT", True, 1),
        ("INT", 10**30, 10**30),
        ("FLOAT", 5, 5.0),
        ("FLOAT", "2.5", 2.5),
        ("FLOAT", False, 0.0),
        ("STRING", 5, "5"),
        ("STRING", None, "None"),
        ("STRING", "", ""),
        ("BOOLEAN", True, True),
        ("BOOLEAN", 0, False),
        ("BOOLEAN", 2, True),
        ("BOOLEAN", None, False),
        ("COMBO", 7, 7),
        ("MYTYPE", {"a": 1}, {"a": 1}),
        ("INT", {"__value__": 5}, 5),
        ("MYTYPE", {"__value__": [1, 2]}, [1, 2]),
    ],
)
def test_conversion(kind: str, value: Any, expected: Any) -> None:
    converted = convert_value(spec(kind), value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INT", "wide"),
        ("INT", "3.7"),
        ("INT", None),
        ("INT", {}),
        ("INT", math.nan),
        ("INT", math.inf),
        ("FLOAT", "much"),
        ("FLOAT", None),
        ("FLOAT", math.nan),
        ("FLOAT", "nan"),
        ("FLOAT", "-inf"),
        ("FLOAT", 10**400),
        ("BOOLEAN", "false"),
        ("BOOLEAN", "true"),
        ("BOOLEAN", {}),
        ("MYTYPE", math.inf),
        ("IMAGE", "photo.png"),
        ("MASK", 0),
        ("MODEL", None),
    ],
)
def test_what_cannot_be_converted(kind: str, value: Any) -> None:
    problem = convert_value(spec(kind), value)
    assert isinstance(problem, Problem)
    assert problem.type == "invalid_input_type"
    assert "'x'" in problem.says
    assert problem.to_json()["extra_info"]["input_name"] == "x"


@pytest.mark.parametrize(
    ("options", "value", "kind"),
    [
        ({"min": 0}, -1, "value_smaller_than_min"),
        ({"min": 0, "max": 8}, 9, "value_bigger_than_max"),
        ({"max": 0.5}, 0.51, "value_bigger_than_max"),
        ({"min": 0, "max": 8}, "many", "invalid_input_type"),
    ],
)
def test_range(options: dict[str, Any], value: Any, kind: str) -> None:
    problem = check_value(spec("NUMBER", **options), value)
    assert problem is not None
    assert problem.type == kind
    assert str(value) in problem.says


@pytest.mark.parametrize("value", [0, 8, 3])
def test_the_ends_of_a_range_belong_to_it(value: int) -> None:
    assert check_value(spec("INT", min=0, max=8), value) is None


def test_options() -> None:
    assert check_value(spec("COMBO", ("a", "b")), "b") is None
    problem = check_value(spec("COMBO", ("a", "b")), "c")
    assert problem is not None
    assert problem.type == "value_not_in_list"
    assert problem.details == "x: 'c' not in ['a', 'b']"
    assert "a, b" in problem.says


def test_a_long_list_of_options_is_not_repeated() -> None:
    problem = check_value(spec("COMBO", tuple(map(str, range(1000)))), "c")
    assert problem is not None
    assert "list of length 1000" in problem.details
    assert problem.extra["input_config"] is None
    assert len(problem.says) < 300


def test_no_options_at_all() -> None:
    problem = check_value(spec("COMBO", ()), "c")
    assert problem is not None
    assert "there are none" in problem.says
    assert check_value(spec("COMBO", (), remote={"route": "/x"}), "c") is None


def test_a_long_value_is_cut_short() -> None:
    problem = check_value(spec("COMBO", ("a",)), "c" * 10_000)
    assert problem is not None
    assert len(problem.says) < 200


@pytest.mark.parametrize(
    ("received", "wanted", "expected"),
    [
        ("IMAGE", spec("IMAGE"), True),
        ("IMAGE", spec("MASK"), False),
        ("IMAGE", spec("*"), True),
        ("*", spec("IMAGE"), True),
        ("IMAGE,MASK", spec("MASK"), True),
        ("STRING", spec("INT, STRING"), True),
        ("STRING,BOOLEAN", spec("INT,FLOAT"), False),
        (["a", "b"], spec("COMBO", ("a", "b")), True),
        (["a", "b"], spec("COMBO", ("a",)), False),
        (["a", "b"], spec("COMBO", ()), True),
        (["a", "b"], spec("STRING"), False),
        ("COMBO", spec("COMBO", ("a",)), True),
        ("STRING", spec("COMBO", ("a",)), False),
    ],
)
def test_which_output_fits_which_input(received: Any, wanted: InputSpec, expected: bool) -> None:
    assert fits(received, wanted) is expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "ODD"]), JSON)
def test_any_value_is_converted_or_refused(kind: str, value: Any) -> None:
    wanted = spec(kind, ("a",) if kind == "COMBO" else None, min=0, max=9)
    converted = convert_value(wanted, value)
    if isinstance(converted, Problem):
        assert converted.type == "invalid_input_type"
        return
    problem = check_value(wanted, converted)
    if kind in {"INT", "FLOAT"} and problem is None:
        assert 0 <= converted <= 9
