"""Which of a node's values belongs to which input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.workflow import load

UI = Any  # the builder of conftest.py
Signature = Callable[..., NodeSignature]

SAMPLER = {
    "model": ["MODEL"],
    "seed": ["INT", {"default": 0, "control_after_generate": True}],
    "steps": ["INT", {"default": 20}],
    "cfg": ["FLOAT", {"default": 8.0}],
    "sampler_name": [["euler", "ddim"]],
    "positive": ["CONDITIONING"],
    "denoise": ["FLOAT", {"default": 1.0}],
}


def read(ui: UI, signature: NodeSignature | None, values: Any, inputs: str = "", **fields: Any) -> dict[str, Any]:
    graph = ui().node(1, "A", inputs, "", values, **fields)
    workflow = load(graph.document(), {"A": signature} if signature else {})
    assert workflow.to_ui() == graph.document()
    return dict(workflow.nodes["1"].inputs)


SAMPLED = {"seed": 5, "steps": 9, "cfg": 7, "sampler_name": "ddim", "denoise": 0.5}


class TestKnownClass:
    @pytest.mark.parametrize(
        "values",
        [
            [5, "randomize", 9, 7, "ddim", 0.5],
            [5, True, 9, 7, "ddim", 0.5],  # the oldest editors
            [5, 9, 7, "ddim", 0.5],  # written by a program that knows of no control
            [5, "fixed", 9, 7, "ddim", 0.5, None, "left over"],
        ],
    )
    def test_the_place_behind_a_seed_may_be_there(self, ui: UI, signature: Signature, values: list[Any]) -> None:
        assert read(ui, signature("A", SAMPLER), values) == SAMPLED

    @pytest.mark.parametrize(
        ("definition", "values", "expected"),
        [
            # Named like a seed, without saying anything.
            ({"noise_seed": ["INT"], "n": ["INT"]}, [1, "increment", 2], {"noise_seed": 1, "n": 2}),
            # Not named like a seed, but saying so.
            ({"n": ["INT", {"control_after_generate": True}], "m": ["INT"]}, [1, "fixed", 2], {"n": 1, "m": 2}),
            # A class that no longer says so, in a file from when it did.
            ({"seed": ["INT", {"control_after_generate": False}], "m": ["INT"]}, [1, "fixed", 2], {"seed": 1, "m": 2}),
            # Only whole numbers and options are controlled: this seed is a text.
            ({"seed": ["STRING"], "mode": ["STRING"]}, ["s", "fixed"], {"seed": "s", "mode": "fixed"}),
            # The word is the value of the next input.
            ({"seed": ["INT"], "mode": [["fixed", "free"]]}, [1, "fixed"], {"seed": 1, "mode": "fixed"}),
            ({"seed": ["INT"], "mode": [["fixed", "free"]]}, [1, "fixed", "fixed"], {"seed": 1, "mode": "fixed"}),
            ({"seed": ["INT"], "on": ["BOOLEAN"]}, [1, True], {"seed": 1, "on": True}),
            ({"seed": ["INT"], "on": ["BOOLEAN"]}, [1, "fixed", False], {"seed": 1, "on": False}),
            ({"seed": ["INT"], "on": ["BOOLEAN"]}, [1, True, False], {"seed": 1, "on": False}),
            # Options that are controlled have a filter too.
            (
                {"c": [["a", "b"], {"control_after_generate": True}], "m": ["INT"]},
                ["b", "increment-wrap", "", 2],
                {"c": "b", "m": 2},
            ),
        ],
    )
    def test_control(
        self, ui: UI, signature: Signature, definition: dict[str, Any], values: list[Any], expected: dict[str, Any]
    ) -> None:
        assert read(ui, signature("A", definition), values) == expected

    @pytest.mark.parametrize("values", [["a.png", "image", 3], ["a.png", 3, "image"], ["a.png", 3], ["b.png", None, 3]])
    def test_the_upload_button_is_no_input(self, ui: UI, signature: Signature, values: list[Any]) -> None:
        node = signature("A", {"image": [["a.png"], {"image_upload": True}]}, {"size": ["INT"]})
        assert read(ui, node, values) == {"image": values[0], "size": 3}

    def test_a_declared_upload_button_has_a_place(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {"image": [["a.png"]], "upload": ["IMAGEUPLOAD"], "size": ["INT"]})
        assert read(ui, node, ["a.png", "image", 3]) == {"image": "a.png", "size": 3}

    def test_a_connection_only_has_no_widget(self, ui: UI, signature: Signature) -> None:
        node = signature(
            "A",
            {"a": ["STRING", {"forceInput": True}], "b": ["BOOLEAN"]},
            {"c": ["STRING", {"defaultInput": True}], "d": ["INT"]},
        )
        assert read(ui, node, [True, 1]) == {"b": True, "d": 1}
        assert read(ui, node, ["", True, "x", 1]) == {"b": True, "d": 1}  # old editors kept places for them

    def test_a_connection_only_takes_no_value_away(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {"a": ["STRING", {"forceInput": True}], "model": [["here.onnx", "there.onnx"]]})
        assert read(ui, node, ["gone.onnx"]) == {"model": "gone.onnx"}

    def test_a_linked_widget_keeps_its_place(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {"width": ["INT"], "height": ["INT"], "mode": [["x", "y"]]})
        graph = (
            ui()
            .node(1, "Size", "", "INT")
            .node(2, "A", "width*:INT height*:INT mode*:COMBO", "", [10, 20, "y"])
            .link(1, 0, 2, "height")
        )
        workflow = load(graph.document(), {"A": node})
        assert workflow.nodes["2"].inputs == {"width": 10, "height": ["1", 0], "mode": "y"}

    def test_missing_values_are_the_defaults(self, ui: UI, signature: Signature) -> None:
        node = signature(
            "A",
            {"a": ["INT"], "b": ["FLOAT", {"default": 0.5}], "c": [["x", "y"]], "d": [[]], "image": ["IMAGE"]},
            {"e": ["STRING"], "f": ["BOOLEAN"], "g": ["FLOAT"], "h": [["x", "y"], {"default": "y"}]},
        )
        expected = {"a": 7, "b": 0.5, "c": "x", "e": "", "f": False, "g": 0.0, "h": "y"}
        assert read(ui, node, [7]) == expected
        assert read(ui, node, None) == {**expected, "a": 0}

    def test_inputs_come_in_the_order_of_the_class(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {"b": ["INT"], "a": ["INT"]}, {"c": ["INT"]})
        assert list(read(ui, node, {"c": 1, "a": 2, "b": 3})) == ["b", "a", "c"]

    def test_values_by_name(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {"rate": ["FLOAT"], "seed": ["INT"]})
        values = {"rate": 8, "seed": 4, "control_after_generate": "fixed", "crf": 19, "videopreview": {"hidden": False}}
        assert read(ui, node, values) == {"rate": 8, "seed": 4, "crf": 19}  # crf: an input that the editor added

    def test_named_values_go_before_places(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {"new": ["INT"], "old": ["INT"]})
        named = {"old": 5, "control_after_generate": "fixed"}
        assert read(ui, node, [5], widgets_values_named=named) == {"new": 5, "old": 5}
        assert read(ui, node, [1, 5], widgets_values_named={"old": 5, "new": 1}) == {"new": 1, "old": 5}

    def test_null_is_kept(self, ui: UI, signature: Signature) -> None:
        assert read(ui, signature("A", {"a": ["INT"], "b": ["INT"]}), [None, 2]) == {"a": None, "b": 2}

    def test_a_model_that_is_not_here_is_still_the_option(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {"ckpt": [["here.safetensors"]], "seed": ["INT"], "task": [["caption", "ocr"]]})
        assert read(ui, node, ["gone.safetensors", 3, "fixed", "ocr"]) == {
            "ckpt": "gone.safetensors",
            "seed": 3,
            "task": "ocr",
        }

    def test_many_values_take_no_time(self, ui: UI, signature: Signature) -> None:
        node = signature("A", {f"seed{i}": ["INT", {"control_after_generate": True}] for i in range(100)})
        values = [value for i in range(100) for value in (i, "fixed")] + [0] * 300
        assert read(ui, node, values) == {f"seed{i}": i for i in range(100)}


class TestUnknownClass:
    """The names come from the file."""

    def test_names_of_the_file(self, ui: UI) -> None:
        assert read(ui, None, [1, "x"], "image:IMAGE n*:INT mode*:COMBO") == {"n": 1, "mode": "x"}

    def test_any_number_may_be_controlled(self, ui: UI) -> None:
        words = "text*:STRING n*:INT m*:INT on*:BOOLEAN"
        assert read(ui, None, ["t", 1, "fixed", 2, True], words) == {"text": "t", "n": 1, "m": 2, "on": True}
        assert read(ui, None, ["t", 1, 2, "increment", True], words) == {"text": "t", "n": 1, "m": 2, "on": True}
        assert read(ui, None, ["t", 1, 2, True], words) == {"text": "t", "n": 1, "m": 2, "on": True}

    def test_the_upload_button(self, ui: UI) -> None:
        words = "image*:COMBO upload*:IMAGEUPLOAD n*:INT"
        assert read(ui, None, ["a.png", "image", 4], words) == {"image": "a.png", "n": 4}

    def test_the_name_of_the_widget_counts(self, ui: UI) -> None:
        graph = ui().node(1, "A", "n*:INT", "", [4])
        graph.nodes[0]["inputs"][0]["widget"]["name"] = "m"
        assert load(graph.document(), {}).nodes["1"].inputs == {"m": 4}

    def test_a_file_that_names_only_connected_widgets(self, ui: UI) -> None:
        """Older editors, and the workflow inside a picture: the other values have no names."""
        graph = ui().node(1, "Size", "", "INT").node(2, "A", "b*:INT", "", ["x", 2, None, True]).link(1, 0, 2, "b")
        workflow = load(graph.document(), {})
        assert workflow.nodes["2"].inputs == {"b": ["1", 0]}
        assert [(d.node_id, d.class_type, d.reason) for d in workflow.dropped] == [
            ("2", "A", "3 widget values without a name")
        ]

    def test_all_widgets_connected(self, ui: UI) -> None:
        graph = ui().node(1, "Size", "", "INT").node(2, "A", "b*:INT", "", [7]).link(1, 0, 2, "b")
        workflow = load(graph.document(), {})
        assert workflow.nodes["2"].inputs == {"b": ["1", 0]}
        assert workflow.dropped == ()

    def test_no_names_at_all(self, ui: UI) -> None:
        workflow = load(ui().node(1, "Show", "text:STRING", "", ["hello"]).document(), {})
        assert workflow.nodes["1"].inputs == {}
        assert [d.reason for d in workflow.dropped] == ["1 widget value without a name"]

    def test_named_values(self, ui: UI) -> None:
        named = {"a": 1, "seed": 2, "control_after_generate": "fixed", "upload": "image"}
        assert read(ui, None, [1, 2, "fixed", "image"], widgets_values_named=named) == {"a": 1, "seed": 2}

    def test_values_by_name(self, ui: UI) -> None:
        assert read(ui, None, {"a": 1, "upload": "image", "preview": {}}) == {"a": 1}
