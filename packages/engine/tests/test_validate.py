"""Prompts that may run and prompts that may not, in ComfyUI's shape."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.errors import UsageError, WorkflowInvalid
from comfy_cpu_core.nodes import NodeClass
from comfy_cpu_engine.nodes import NODE_CLASSES
from comfy_cpu_engine.validate import ValidPrompt, validate

Toy = Callable[..., NodeClass]

KNOWN = {node.class_type: node for node in NODE_CLASSES}

GOOD: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "ImageScale", "inputs": {
        "image": ["1", 0], "upscale_method": "area", "width": 4, "height": 4, "crop": "disabled",
    }},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "out"}},
}  # fmt: skip


def changed(node_id: str, **inputs: Any) -> dict[str, Any]:
    """The good prompt with inputs changed; ``...`` leaves one out."""
    prompt = copy.deepcopy(GOOD)
    for name, value in inputs.items():
        if value is ...:
            del prompt[node_id]["inputs"][name]
        else:
            prompt[node_id]["inputs"][name] = value
    return prompt


def refused(prompt: Any, *toys: NodeClass, only: Any = None) -> WorkflowInvalid:
    with pytest.raises(WorkflowInvalid) as error:
        validate(prompt, {**KNOWN, **{toy.class_type: toy for toy in toys}}, only=only)
    assert "\n" not in str(error.value)
    return error.value


def accepted(prompt: Any, *toys: NodeClass) -> ValidPrompt:
    return validate(prompt, {**KNOWN, **{toy.class_type: toy for toy in toys}})


def types(error: WorkflowInvalid) -> dict[str, list[str]]:
    return {node_id: [e["type"] for e in found["errors"]] for node_id, found in error.node_errors.items()}


def test_a_good_prompt() -> None:
    before = copy.deepcopy(GOOD)
    plan = accepted(GOOD)
    assert list(plan.nodes) == ["1", "2", "3"]
    assert plan.outputs == ("3",)
    assert plan.warnings == ()
    assert plan.kind("2").class_type == "ImageScale"
    assert before == GOOD


def test_values_are_converted_in_the_plan_alone() -> None:
    prompt = changed("2", width="12", height=3.9)
    assert accepted(prompt).nodes["2"].inputs["width"] == 12
    assert accepted(prompt).nodes["2"].inputs["height"] == 3
    assert prompt["2"]["inputs"]["width"] == "12"


@pytest.mark.parametrize(
    ("prompt", "kind", "says"),
    [
        (changed("2", width=...), "required_input_missing", "required input 'width' is missing"),
        (changed("2", width="wide"), "invalid_input_type", "input 'width' is 'wide', which is no INT"),
        (changed("2", width=math.nan), "invalid_input_type", "input 'width' is nan"),
        (changed("2", width=-1), "value_smaller_than_min", "input 'width' is -1, smaller than its minimum 0"),
        (changed("2", width=99_999), "value_bigger_than_max", "input 'width' is 99999, bigger than its maximum 16384"),
        (changed("2", crop="left"), "value_not_in_list", "'left', which is none of its options (disabled, center)"),
        (changed("2", image=["9", 0]), "bad_linked_input", "is connected to node 9, which does not exist"),
        (changed("2", image=["1", 1]), "bad_linked_input", "output 1 of node 1 (EmptyImage), which has 1 outputs"),
        (changed("2", image=["1", -1]), "bad_linked_input", "output -1 of node 1"),
        (changed("2", image=["1", 0.5]), "bad_linked_input", "not of a node id"),
        (changed("2", image=["1"]), "bad_linked_input", "not of a node id and an output's number"),
        (changed("2", image=[1, 0]), "bad_linked_input", "not of a node id"),
        (changed("2", image=[]), "bad_linked_input", "not of a node id"),
        (changed("2", image="photo.png"), "invalid_input_type", "takes a connection from another node"),
        (changed("2", width=["1", 0]), "return_type_mismatch", "takes INT, but output 0 of node 1 (EmptyImage) is IMAGE"),
        (changed("2", more=["9", 0]), "bad_linked_input", "input 'more'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_one_line(prompt: Any, kind: str, says: str) -> None:
    error = refused(prompt)
    assert types(error) == {"2": [kind]}
    assert str(error).startswith("node 2 (ImageScale): ")
    assert says in str(error)
    assert error.node_errors["2"]["class_type"] == "ImageScale"
    assert error.node_errors["2"]["dependent_outputs"] == ["3"]
    assert error.error["type"] == "prompt_outputs_failed_validation"


def test_all_errors_are_there_and_the_first_is_named() -> None:
    prompt = changed("2", width=-1, crop="left")
    prompt["1"]["inputs"]["width"] = 0
    error = refused(prompt)
    assert types(error) == {"1": ["value_smaller_than_min"], "2": ["value_smaller_than_min", "value_not_in_list"]}
    assert str(error).startswith("node 1 (EmptyImage): ")
    assert str(error).endswith("(and 2 more)")


@pytest.mark.parametrize(
    ("prompt", "kind", "says"),
    [
        ({}, "prompt_no_outputs", "empty"),
        ([], "invalid_prompt", "not an object"),
        ("prompt", "invalid_prompt", "not an object"),
        ({"1": 5}, "invalid_prompt", "node 1 is 5"),
        ({1: GOOD["1"]}, "invalid_prompt", "node id 1"),
        ({"1": {"inputs": {}}}, "invalid_prompt", "node 1 has no class_type"),
        ({"1": {"class_type": 5, "inputs": {}}}, "invalid_prompt", "node 1 has no class_type"),
        ({"1": {"class_type": "EmptyImage", "inputs": []}}, "invalid_prompt", "node 1 (EmptyImage) has inputs"),
        ({"1": GOOD["1"]}, "prompt_no_outputs", "no output node"),
    ],
)
def test_prompts_that_are_none(prompt: Any, kind: str, says: str) -> None:
    error = refused(prompt)
    assert error.error["type"] == kind
    assert error.node_errors == {}
    assert says in str(error)


def test_an_unknown_class_is_named_and_needs_comfyui() -> None:
    prompt = {**GOOD, "7": {"class_type": "KSampler", "inputs": {}}, "8": {"class_type": "VAEDecode", "inputs": {}}}
    error = refused(prompt)
    assert types(error) == {"7": ["missing_node_type"], "8": ["missing_node_type"]}
    assert "'KSampler'" in str(error)
    assert "needs ComfyUI" in str(error)
    assert error.remedy is not None
    assert error.error["type"] == "missing_node_type"


def test_a_cycle_is_named_with_its_path() -> None:
    prompt = changed("2", image=["4", 0])
    prompt["4"] = {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}}
    error = refused(prompt)
    assert "2 -> 4 -> 2" in str(error)
    (found,) = error.node_errors.values()
    assert found["errors"][0]["type"] == "dependency_cycle"


def test_what_no_output_needs_is_not_checked() -> None:
    prompt = {**GOOD, "7": {"class_type": "ImageInvert", "inputs": {}}}
    assert "7" not in accepted(prompt).nodes


def test_an_output_that_is_connected_to_nothing_is_left_out() -> None:
    plan = accepted({**GOOD, "7": {"class_type": "PreviewImage", "inputs": {}}})
    assert plan.outputs == ("3",)
    (warning,) = plan.warnings
    assert "node 7 (PreviewImage) was left out" in warning


def test_it_is_an_error_if_no_other_output_is_left() -> None:
    error = refused({"7": {"class_type": "PreviewImage", "inputs": {}}})
    assert types(error) == {"7": ["required_input_missing"]}


def test_an_invalid_branch_stops_the_whole_run() -> None:
    """ComfyUI would run the rest; the branch may be the one with the safety check."""
    prompt = {
        **GOOD,
        "7": {"class_type": "ImageInvert", "inputs": {}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
    }
    error = refused(prompt)
    assert types(error) == {"7": ["required_input_missing"]}
    assert error.node_errors["7"]["dependent_outputs"] == ["8"]


def test_only_some_outputs() -> None:
    prompt = {**GOOD, "7": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    assert list(validate(prompt, KNOWN, only=["7"]).nodes) == ["1", "7"]
    assert validate(prompt, KNOWN, only=["7", "3"]).outputs == ("3", "7")
    with pytest.raises(UsageError, match="node 2 is no output node"):
        validate(prompt, KNOWN, only=["2"])
    refused(prompt, only=[])


def gate(toy: Toy, **options: Any) -> NodeClass:
    """An output node with inputs a (0..9) and b (an option), checked by itself as `options` say."""
    return toy(
        "Gate",
        lambda **_: (1,),
        required={"a": ("INT", {"min": 0, "max": 9})},
        optional={"b": (["x", "y"],)},
        OUTPUT_NODE=True,
        **options,
    )


def asks(**inputs: Any) -> dict[str, Any]:
    return {"g": {"class_type": "Gate", "inputs": inputs}}


def test_an_input_that_the_class_validates_is_not_checked_for_range(toy: Toy) -> None:
    seen: list[Any] = []

    def check(cls: type, a: int) -> bool:
        seen.append(a)
        return True

    made = gate(toy, VALIDATE_INPUTS=classmethod(check))
    accepted(asks(a="99"), made)
    assert seen == [99], "converted, but not compared with its maximum"
    assert types(refused(asks(a="much"), made)) == {"g": ["invalid_input_type"]}
    assert types(refused(asks(a=99, b="z"), made)) == {"g": ["value_not_in_list"]}, "b is not the class's business"


def test_kwargs_validate_everything(toy: Toy) -> None:
    seen: list[Any] = []

    def check(cls: type, **inputs: Any) -> bool:
        seen.append(inputs)
        return True

    accepted(asks(a=99, b="z"), gate(toy, VALIDATE_INPUTS=classmethod(check)))
    assert seen == [{"a": 99, "b": "z"}]


@pytest.mark.parametrize(("answer", "details"), [("too dark", "a - too dark"), (False, "a")])
def test_what_the_class_refuses(toy: Toy, answer: Any, details: str) -> None:
    error = refused(asks(a=1), gate(toy, VALIDATE_INPUTS=classmethod(lambda cls, a: answer)))
    (problem,) = error.node_errors["g"]["errors"]
    assert (problem["type"], problem["details"]) == ("custom_validation_failed", details)
    assert "'a'" in str(error)


def test_a_validation_that_raises(toy: Toy) -> None:
    error = refused(asks(a=1), gate(toy, VALIDATE_INPUTS=classmethod(lambda cls, a: 1 / 0)))
    assert types(error) == {"g": ["exception_during_validation"]}
    assert "ZeroDivisionError" in str(error)


def test_input_types_that_raise(toy: Toy) -> None:
    broken = gate(toy, INPUT_TYPES=classmethod(lambda cls: 1 / 0))
    assert types(refused(asks(a=1), broken)) == {"g": ["exception_during_validation"]}


def test_a_class_that_checks_types_gets_them(toy: Toy) -> None:
    seen: list[Any] = []

    def check(cls: type, input_types: dict[str, str]) -> bool | str:
        seen.append(input_types)
        return input_types.get("a") == "IMAGE" or "not that"

    prompt = {**GOOD, **asks(a=["1", 0])}
    accepted(prompt, gate(toy, VALIDATE_INPUTS=classmethod(check)))
    assert seen == [{"a": "IMAGE"}]
    error = refused(asks(a=1), gate(toy, VALIDATE_INPUTS=classmethod(check)))
    assert types(error) == {"g": ["custom_validation_failed"]}


def test_linked_inputs_have_no_value_yet(toy: Toy) -> None:
    seen: list[Any] = []

    def check(cls: type, a: Any, b: Any) -> bool:
        seen.append((a, b))
        return True

    number = toy("Number", lambda: (1,))
    prompt = {**asks(a=["n", 0], b="z"), "n": {"class_type": "Number", "inputs": {}}}
    accepted(prompt, gate(toy, VALIDATE_INPUTS=classmethod(check)), number)
    assert seen == [(None, "z")]


def test_union_and_wildcard_types(toy: Toy) -> None:
    source = toy("Source", lambda: (1, 2), returns=("STRING,INT", "*"))
    sink = toy("Sink", lambda **_: (), required={"a": ("INT,FLOAT",), "b": ("MODEL",), "c": ("*",)}, OUTPUT_NODE=True)
    prompt = {
        "s": {"class_type": "Source", "inputs": {}},
        "o": {"class_type": "Sink", "inputs": {"a": ["s", 0], "b": ["s", 1], "c": ["s", 0]}},
    }
    accepted(prompt, source, sink)


def test_a_combo_output_feeds_an_input_with_the_same_options(toy: Toy) -> None:
    source = toy("Source", lambda: ("x", "y"), returns=(["x", "y"], "STRING"))
    prompt = {**asks(a=1, b=["s", 0]), "s": {"class_type": "Source", "inputs": {}}}
    accepted(prompt, source, gate(toy))
    prompt["g"]["inputs"]["b"] = ["s", 1]
    assert types(refused(prompt, source, gate(toy))) == {"g": ["return_type_mismatch"]}


PROMPTS = st.dictionaries(
    st.sampled_from(["1", "2", "3", "4"]),
    st.fixed_dictionaries(
        {
            "class_type": st.sampled_from([*KNOWN, "Unknown"]),
            "inputs": st.dictionaries(
                st.sampled_from(["image", "images", "mask", "width", "height", "crop", "channel", "color", "odd"]),
                st.none()
                | st.integers(-5, 20_000)
                | st.text(max_size=4)
                | st.floats()
                | st.tuples(st.sampled_from(["1", "2", "3", "4", "5"]), st.integers(-1, 2)).map(list)
                | st.lists(st.integers(), max_size=3),
                max_size=5,
            ),
        }
    ),
    max_size=4,
)


def plan_or_error(prompt: dict[str, Any]) -> ValidPrompt | WorkflowInvalid:
    try:
        return validate(prompt, KNOWN)
    except WorkflowInvalid as error:
        return error


@given(PROMPTS)
def test_any_prompt_is_accepted_or_refused_with_reasons(prompt: dict[str, Any]) -> None:
    before = copy.deepcopy(prompt)
    plan = plan_or_error(prompt)
    if isinstance(plan, WorkflowInvalid):
        assert str(plan)
        assert "\n" not in str(plan)
        assert plan.error["type"]
        for node_id, found in plan.node_errors.items():
            assert found["class_type"] == prompt[node_id]["class_type"]
            assert found["errors"]
    else:
        assert set(plan.outputs) <= set(plan.nodes) <= set(prompt)
    assert repr(prompt) == repr(before)
