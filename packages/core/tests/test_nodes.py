"""Signatures: read from classes and from /object_info."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_core.nodes import WIDGET_TYPES, InputSpec, NodeClass, NodeSignature


class Text(str):
    """Some packs use types that are text and more."""

    __slots__ = ()


class Full:
    RETURN_TYPES = ("IMAGE", ["a", "b"], Text("*"))
    RETURN_NAMES = ("picture", "choice", "anything")
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    OUTPUT_IS_LIST = (False, True, False)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "mode": (["fast", "good"], {"default": "good"}),
                "new_mode": ("COMBO", {"options": ["x", "y"]}),
                "n": ("INT", {"default": 1, "min": 0}),
            },
            "optional": {"text": ("STRING", {"forceInput": True})},
            "hidden": {"id": "UNIQUE_ID"},
        }


class Bare:
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}


def test_a_full_class() -> None:
    signature = NodeSignature.from_class("Full", Full)
    assert signature.class_type == "Full"
    assert [(spec.name, spec.type, spec.section) for spec in signature.inputs] == [
        ("image", "IMAGE", "required"),
        ("mode", "COMBO", "required"),
        ("new_mode", "COMBO", "required"),
        ("n", "INT", "required"),
        ("text", "STRING", "optional"),
        ("id", "UNIQUE_ID", "hidden"),
    ]
    assert [spec.name for spec in signature.widgets] == ["mode", "new_mode", "n"]
    assert signature.outputs == ("IMAGE", "COMBO", "*")
    assert signature.output_names == ("picture", "choice", "anything")
    assert signature.output_node
    assert signature.input_is_list
    assert signature.output_is_list == (False, True, False)


def test_options_and_choices() -> None:
    signature = NodeSignature.from_class("Full", Full)
    mode, new_mode, n = (signature.input(name) for name in ("mode", "new_mode", "n"))
    assert mode == InputSpec("mode", "COMBO", "required", ("fast", "good"), {"default": "good"})
    assert new_mode is not None
    assert new_mode.choices == ("x", "y")
    assert n == InputSpec("n", "INT", "required", None, {"default": 1, "min": 0})
    assert signature.input("nothing") is None


def test_a_bare_class() -> None:
    assert NodeSignature.from_class("Bare", Bare) == NodeSignature("Bare", ())


def test_outputs_without_names_or_lists() -> None:
    class Node(Bare):
        RETURN_TYPES = ("IMAGE", "MASK")

    signature = NodeSignature.from_class("Node", Node)
    assert signature.output_names == ("IMAGE", "MASK")
    assert signature.output_is_list == (False, False)


def test_object_info_says_the_same_as_the_class() -> None:
    info = {
        "input": {
            "required": {
                "image": ["IMAGE"],
                "mode": [["fast", "good"], {"default": "good"}],
                "new_mode": ["COMBO", {"options": ["x", "y"]}],
                "n": ["INT", {"default": 1, "min": 0}],
            },
            "optional": {"text": ["STRING", {"forceInput": True}]},
            "hidden": {"id": "UNIQUE_ID"},
        },
        "output": ["IMAGE", ["a", "b"], "*"],
        "output_name": ["picture", "choice", "anything"],
        "output_node": True,
        "is_input_list": True,
        "output_is_list": [False, True, False],
    }
    assert NodeSignature.from_object_info("Full", info) == NodeSignature.from_class("Full", Full)


def test_a_bare_object_info() -> None:
    assert NodeSignature.from_object_info("Bare", {}) == NodeSignature("Bare", ())
    assert NodeSignature.from_object_info("Bare", {"input": None, "input_order": None}).inputs == ()
    assert NodeSignature.from_object_info("Bare", {"input": {"required": None, "hidden": {}}}).inputs == ()


def test_input_order_goes_before_the_order_of_the_keys() -> None:
    info = {
        "input": {"required": {"a": ["INT"], "b": ["INT"], "c": ["INT"]}, "optional": {"d": ["INT"], "e": ["INT"]}},
        "input_order": {"required": ["c", "gone", "a"], "optional": ["e", "d"]},
    }
    assert [spec.name for spec in NodeSignature.from_object_info("A", info).inputs] == ["c", "a", "b", "e", "d"]


@pytest.mark.parametrize(
    ("spec", "is_widget"),
    [
        *[(InputSpec("x", name, "required"), True) for name in sorted(WIDGET_TYPES)],
        (InputSpec("x", "IMAGE", "required"), False),
        (InputSpec("x", "INT", "hidden"), False),
        (InputSpec("x", "INT", "required", options={"forceInput": True}), False),
        (InputSpec("x", "INT", "required", options={"forceInput": False}), True),
        (InputSpec("x", "INT", "optional", options={"defaultInput": True}), False),
        (InputSpec("x", "INT", "required", options={"defaultInput": True}), True),
        (InputSpec("x", "MY_TYPE", "required", options={"widgetType": "STRING"}), True),
        (InputSpec("x", "STRING", "required", options={"widgetType": "MY_WIDGET"}), False),
    ],
)
def test_what_is_a_widget(spec: InputSpec, is_widget: bool) -> None:
    assert spec.is_widget is is_widget


@pytest.mark.parametrize(
    ("spec", "has_default", "default"),
    [
        (InputSpec("x", "INT", "required", options={"default": 0}), True, 0),
        (InputSpec("x", "COMBO", "required", ("a", "b"), {"default": "b"}), True, "b"),
        (InputSpec("x", "COMBO", "required", ("a", "b")), True, "a"),
        (InputSpec("x", "COMBO", "required", ()), False, None),
        (InputSpec("x", "INT", "required"), False, None),
    ],
)
def test_defaults(spec: InputSpec, has_default: bool, default: Any) -> None:
    assert (spec.has_default, spec.default) == (has_default, default)


def test_a_node_class_reads_its_signature_anew() -> None:
    files = ["a.onnx"]

    class Loader:
        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"model": (list(files),)}}

    node = NodeClass("Loader", Loader, "Load a model")
    assert node.signature.inputs[0].choices == ("a.onnx",)
    files.append("b.onnx")
    assert node.signature.inputs[0].choices == ("a.onnx", "b.onnx")
    assert node.signature.class_type == "Loader"
