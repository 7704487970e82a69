"""Editing a workflow, and writing it back."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.workflow import Link, PromptNode, Workflow, is_link, load

UI = Any  # the builder of conftest.py

API = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
    "4": {"class_type": "Cut", "inputs": {"image": ["1", 0], "provider": "CUDA", "size.width": 2}},
    "4.5": {"class_type": "Save", "inputs": {"images": ["4", 0]}},
    "1:2": {"class_type": "Cut", "inputs": {"provider": "CUDA"}},
}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


class TestWithInputs:
    @pytest.mark.parametrize(
        ("key", "node_id", "name"),
        [
            ("4.provider", "4", "provider"),
            ("1:2.provider", "1:2", "provider"),
            ("4.size.width", "4", "size.width"),
            ("4.image", "4", "image"),  # a value takes the place of a connection
            ("4.5.images", "4.5", "images"),
        ],
    )
    def test_sets_one_input_and_nothing_else(self, key: str, node_id: str, name: str) -> None:
        if key == "4.5.images":  # node 4 is there, too, and goes first
            with pytest.raises(WorkflowError, match=r"node 4 .* has no input '5.images'"):
                load(API, {}).with_input(key, "x")
            return
        expected = copy.deepcopy(API)
        expected[node_id]["inputs"][name] = "x"  # type: ignore[index]
        before = load(API, {})
        assert before.with_input(key, "x").to_prompt() == expected
        assert before.to_prompt() == API

    def test_dots_in_ids(self) -> None:
        prompt = {"a.b": {"class_type": "A", "inputs": {"x": 1}}}
        assert load(prompt, {}).with_input("a.b.x", 2).nodes["a.b"].inputs == {"x": 2}

    @given(value=values)
    def test_any_json_comes_back(self, value: Any) -> None:
        assume(not is_link(value))  # a connection: see below
        workflow = load(API, {}).with_input("4.provider", value)
        kept = workflow.to_prompt()["4"]["inputs"]["provider"]
        assert kept == ({"__value__": value} if isinstance(value, list) else value)
        assert load(workflow.to_prompt(), {}) == workflow

    def test_a_connection_to_a_node_that_is_there(self) -> None:
        assert dict(load(API, {}).with_input("4.provider", ["1", 1]).nodes["4"].links())["provider"] == Link("1", 1)

    def test_a_connection_to_a_node_that_is_not_there(self) -> None:
        with pytest.raises(WorkflowError, match=r"value of 4\.provider: there is no node '9' to connect to"):
            load(API, {}).with_input("4.provider", ["9", 1])

    @pytest.mark.parametrize("output", [-1, 0.5])
    def test_a_connection_to_an_output_that_no_node_has(self, output: float) -> None:
        with pytest.raises(WorkflowError, match=r"value of 4\.provider: no node has an output"):
            load(API, {}).with_input("4.provider", ["1", output])

    def test_all_or_nothing(self) -> None:
        workflow = load(API, {})
        with pytest.raises(WorkflowError):
            workflow.with_inputs({"4.provider": "CPU", "4.nothing": 1})
        assert workflow.to_prompt() == API

    def test_a_value_of_the_caller_is_copied(self) -> None:
        value = {"a": [1]}
        workflow = load(API, {}).with_input("4.provider", value)
        value["a"].append(2)
        assert workflow.nodes["4"].inputs["provider"] == {"a": [1]}

    def test_an_input_that_only_the_class_has(self, signature: Callable[..., NodeSignature]) -> None:
        known = {"Cut": signature("Cut", {"provider": [["CPU"]]}, {"blur": ["INT"]})}
        workflow = load(API, known).with_input("4.blur", 3)
        assert workflow.nodes["4"].inputs["blur"] == 3
        assert workflow.with_input("1:2.blur", 4).nodes["1:2"].inputs["blur"] == 4
        with pytest.raises(WorkflowError, match="has no input 'blurr'") as caught:
            workflow.with_input("4.blurr", 3)
        assert caught.value.remedy == "its inputs: blur"

    @pytest.mark.parametrize(
        ("key", "message", "remedy"),
        [
            ("provider", "'provider' does not name an input", "write NODE.INPUT, for example 4.provider"),
            ("4.", "'4.' does not name an input", "write NODE.INPUT"),
            ("", "'' does not name an input", "write NODE.INPUT"),
            (".x", "'.x' does not name an input", "write NODE.INPUT"),
            ("4.provder", "node 4 \\(Cut\\) has no input 'provder'", "its inputs: provider"),
            ("4.zzz", "has no input 'zzz'", "its inputs: image, provider, size.width"),
            ("cut.provider", "there is no node 'cut'", r"nodes near that: 4 \(Cut\), 1:2 \(Cut\)"),
            ("Photo.image", "there is no node 'Photo'", r"nodes near that: 1 \(LoadImage\)"),
            ("1:3.provider", "there is no node '1:3'", r"nodes near that: 1:2 \(Cut\)"),
            ("99.images", "there is no node '99'", r"nodes near that: 4.5 \(Save\)"),
            ("99.nothing", "there is no node '99'", r"nodes near that: 1 \(LoadImage\), 4 \(Cut\)"),
        ],
    )
    def test_what_is_not_there_names_what_is_near(self, key: str, message: str, remedy: str) -> None:
        with pytest.raises(WorkflowError, match=message) as caught:
            load(API, {}).with_input(key, 1)
        assert caught.value.remedy is not None
        assert re.match(remedy, caught.value.remedy)

    def test_a_node_without_inputs(self) -> None:
        with pytest.raises(WorkflowError) as caught:
            load({"1": {"class_type": "A", "inputs": {}}}, {}).with_input("1.x", 1)
        assert caught.value.remedy == "the node has no inputs"

    def test_a_node_that_was_left_out(self, ui: UI) -> None:
        workflow = load(ui().node(1, "A").node(2, "Save", "name*:STRING", "", ["x"], mode=4).document(), {})
        with pytest.raises(WorkflowError, match=r"node 2 \(Save\) does not run: bypassed"):
            workflow.with_input("2.name", "y")

    def test_a_value_that_is_no_json(self) -> None:
        with pytest.raises(WorkflowError, match=r"value of 4\.provider: nan is not a number that JSON has"):
            load(API, {}).with_input("4.provider", float("nan"))


class TestToUi:
    def graph(self, ui: UI) -> UI:
        return (
            ui()
            .node(1, "PrimitiveNode", "", "INT", [640, "fixed"], pos=[1.5, 2])
            .node(2, "A", "width*:INT height*:INT seed*:INT", "IMAGE", [1, 2, 5, "fixed"])
            .node(3, "B", "image:IMAGE mode*:COMBO", "", {"mode": "x", "preview": {"a": 1}})
            .link(1, 0, 2, "width")
            .link(2, 0, 3, "image")
        )

    def test_only_the_values_change(self, ui: UI) -> None:
        document = self.graph(ui).document()
        expected = copy.deepcopy(document)
        expected["nodes"][1]["widgets_values"][2] = 6
        expected["nodes"][2]["widgets_values"]["mode"] = "y"
        workflow = load(document, {})
        assert workflow.to_ui() == document
        assert workflow.with_inputs({"2.seed": 6, "3.mode": "y"}).to_ui() == expected
        assert workflow.to_ui() == document

    def test_what_was_written_reads_as_it_was(self, ui: UI) -> None:
        edited = load(self.graph(ui).document(), {}).with_inputs({"2.seed": 6, "2.width": 9, "3.mode": ["a", "b"]})
        assert load(edited.to_ui(), {}) == load(edited.to_ui(), {})
        assert load(edited.to_ui(), {}).to_prompt() == edited.to_prompt()

    def test_true_is_not_one(self, ui: UI) -> None:
        workflow = load(ui().node(1, "A", "x*:*", "", [1]).document(), {}).with_input("1.x", True)
        assert workflow.to_ui()["nodes"][0]["widgets_values"][0] is True

    def test_a_primitive_is_written_where_it_stands(self, ui: UI) -> None:
        written = load(self.graph(ui).document(), {}).with_input("2.width", 9).to_ui()
        assert written["nodes"][0]["widgets_values"] == [9, "fixed"]
        assert written["nodes"][1]["widgets_values"] == [1, 2, 5, "fixed"]

    def test_a_primitive_with_two_targets(self, ui: UI) -> None:
        workflow = load(self.graph(ui).link(1, 0, 2, "height").document(), {})
        with pytest.raises(
            WorkflowError, match=r"2\.width cannot be written back .* 2.height has its value from the same"
        ):
            workflow.with_input("2.width", 9).to_ui()
        with pytest.raises(WorkflowError, match=r"2\.(width|height) cannot be written back"):
            workflow.with_inputs({"2.width": 9, "2.height": 8}).to_ui()
        both = workflow.with_inputs({"2.width": 9, "2.height": 9})
        assert both.to_ui()["nodes"][0]["widgets_values"] == [9, "fixed"]

    def test_named_values_are_written_too(self, ui: UI) -> None:
        graph = ui().node(1, "A", "x*:INT", "", [1], widgets_values_named={"x": 1})
        node = load(graph.document(), {}).with_input("1.x", 2).to_ui()["nodes"][0]
        assert (node["widgets_values"], node["widgets_values_named"]) == ([2], {"x": 2})

    def test_named_values_that_differ_are_written_where_they_were_read(self, ui: UI) -> None:
        graph = ui().node(1, "A", "x*:INT y*:INT", "", [1, 2], widgets_values_named={"x": 1, "y": 3})
        workflow = load(graph.document(), {})
        assert workflow.nodes["1"].inputs == {"x": 1, "y": 3}
        node = workflow.with_input("1.y", 4).to_ui()["nodes"][0]
        assert (node["widgets_values"], node["widgets_values_named"]) == ([1, 2], {"x": 1, "y": 4})

    def subgraph(self, ui: UI, *hosts: Any) -> dict[str, Any]:
        inner = ui().node(2, "A", "n*:INT m*:INT", "", [1, 2]).link(-10, 0, 2, "n").subgraph("g", "n:INT")
        graph = ui()
        for number, values in enumerate(hosts, 1):
            graph.node(number, "g", "n*:INT", "", values)
        return graph.document(inner)  # type: ignore[no-any-return]

    def test_the_inside_of_a_subgraph(self, ui: UI) -> None:
        written = load(self.subgraph(ui, []), {}).with_inputs({"1:2.n": 8, "1:2.m": 9}).to_ui()
        assert written["definitions"]["subgraphs"][0]["nodes"][0]["widgets_values"] == [8, 9]

    def test_a_value_that_a_subgraph_node_shows(self, ui: UI) -> None:
        workflow = load(self.subgraph(ui, [5], [6]), {})
        written = workflow.with_input("1:2.n", 8).to_ui()
        assert [node["widgets_values"] for node in written["nodes"]] == [[8], [6]]

    def test_a_subgraph_that_is_used_twice(self, ui: UI) -> None:
        workflow = load(self.subgraph(ui, [5], [6]), {})
        with pytest.raises(WorkflowError, match=r"1:2\.m cannot be written back .* 2:2.m has its value from the same"):
            workflow.with_input("1:2.m", 9).to_ui()
        written = workflow.with_inputs({"1:2.m": 9, "2:2.m": 9}).to_ui()
        assert written["definitions"]["subgraphs"][0]["nodes"][0]["widgets_values"] == [1, 9]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("3.image", "x", "3.image cannot be written back to UI format: its value comes through a connection"),
            ("3.mode", ["2", 0], "3.mode cannot be written back to UI format: a connection is no value"),
            ("2.new", 4, "2.new cannot be written back to UI format: the file has no value for it"),
            ("2.extra", 4, "2.extra cannot be written back to UI format: the file has no value for it"),
        ],
    )
    def test_what_has_no_place(
        self, ui: UI, signature: Callable[..., NodeSignature], key: str, value: Any, message: str
    ) -> None:
        # The class has grown since the file was saved: new is filled in with its default, extra is a connection.
        numbers = {name: ["INT"] for name in ("width", "height", "seed", "new")}
        workflow = load(self.graph(ui).document(), {"A": signature("A", numbers, {"extra": ["IMAGE"]})})
        assert workflow.nodes["2"].inputs["new"] == 0
        with pytest.raises(WorkflowError, match=message):
            workflow.with_input(key, value).to_ui()

    def test_api_format_has_no_ui(self) -> None:
        with pytest.raises(WorkflowError, match="it was read in API format"):
            load(API, {}).to_ui()


def test_a_workflow_may_be_made_of_nodes() -> None:
    workflow = Workflow({"1": PromptNode("1", "A", {"x": 1}, "Title")})
    assert workflow.to_prompt() == {"1": {"class_type": "A", "inputs": {"x": 1}, "_meta": {"title": "Title"}}}
    assert workflow.with_input("1.x", 2).nodes["1"] == PromptNode("1", "A", {"x": 2}, "Title")


def test_prompt_nodes_tell_values_from_connections() -> None:
    node = PromptNode("1", "A", {"x": 1, "y": ["2", 1.0], "z": ["2", True]})
    assert list(node.links()) == [("y", Link("2", 1))]
    assert (node.widget("x"), node.widget("y"), node.widget("nothing")) == (1, None, None)
