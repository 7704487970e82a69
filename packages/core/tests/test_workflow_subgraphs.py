"""Subgraphs: taken apart, with the values that their nodes show of the widgets inside."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.workflow import Dropped, Workflow, load
from comfy_cpu_core.workflow import ui as ui_module

UI = Any  # the builder of conftest.py


def inputs(workflow: Workflow) -> dict[str, dict[str, Any]]:
    return {node_id: dict(node.inputs) for node_id, node in workflow.nodes.items()}


def blur(ui: UI, name: str = "g", **fields: Any) -> dict[str, Any]:
    """image, radius -> Blur(2) -> Sharpen(3) -> image."""
    return (
        ui()
        .node(2, "Blur", "image:IMAGE radius*:INT seed*:INT", "IMAGE", [3, 4, "fixed"], **fields)
        .node(3, "Sharpen", "image:IMAGE amount*:FLOAT", "IMAGE", [0.5])
        .link(-10, 0, 2, "image")
        .link(-10, 1, 2, "radius")
        .link(2, 0, 3, "image")
        .link(3, 0, -20, "0")
        .subgraph(name, "image:IMAGE radius:INT", "image:IMAGE")
    )


def around(ui: UI, words: str = "image:IMAGE radius*:INT", values: Any = None, **fields: Any) -> UI:
    """LoadImage -> subgraph g (1) -> SaveImage."""
    return (
        ui()
        .node(7, "LoadImage", "", "IMAGE")
        .node(1, "g", words, "IMAGE", values, **fields)
        .node(9, "SaveImage", "images:IMAGE")
        .link(7, 0, 1, "image")
        .link(1, 0, 9, "images")
    )


def test_nodes_inside_get_ids_of_their_own(ui: UI) -> None:
    workflow = load(around(ui).document(blur(ui)), {})
    assert inputs(workflow) == {
        "7": {},
        "1:2": {"image": ["7", 0], "radius": 3, "seed": 4},
        "1:3": {"image": ["1:2", 0], "amount": 0.5},
        "9": {"images": ["1:3", 0]},
    }
    assert workflow.with_input("1:2.seed", 8).nodes["1:2"].inputs["seed"] == 8
    assert workflow.dropped == ()


def test_two_nodes_of_one_subgraph(ui: UI) -> None:
    graph = around(ui, values=[11]).node(4, "g", "image:IMAGE radius*:INT", "IMAGE", [12]).link(1, 0, 4, "image")
    nodes = inputs(load(graph.document(blur(ui)), {}))
    assert (nodes["1:2"]["radius"], nodes["4:2"]["radius"]) == (11, 12)
    assert nodes["4:2"]["image"] == ["1:3", 0]


@pytest.mark.parametrize("mode", [2, 4])
def test_a_subgraph_that_does_not_run(ui: UI, mode: int) -> None:
    workflow = load(around(ui, mode=mode).document(blur(ui)), {})
    assert inputs(workflow) == {"7": {}, "9": {"images": ["7", 0]} if mode == 4 else {}}
    reason = "bypassed" if mode == 4 else "muted"
    # What is inside is named too: it may be a safety gate.
    assert workflow.dropped == (
        Dropped("1", "subgraph g", reason),
        Dropped("1:2", "Blur", reason),
        Dropped("1:3", "Sharpen", reason),
    )


def test_a_subgraph_in_itself_that_does_not_run(ui: UI) -> None:
    loop = ui().node(2, "g").subgraph("g")
    workflow = load(ui().node(1, "g", mode=4).node(3, "Blur").document(loop), {})
    assert [node.node_id for node in workflow.dropped] == ["1", "1:2"]


def test_a_bypassed_node_inside(ui: UI) -> None:
    workflow = load(around(ui).document(blur(ui, mode=4)), {})
    assert inputs(workflow)["1:3"] == {"image": ["7", 0], "amount": 0.5}
    assert workflow.dropped == (Dropped("1:2", "Blur", "bypassed"),)


def test_nested(ui: UI) -> None:
    outer = (
        ui()
        .node(5, "g", "image:IMAGE radius*:INT", "IMAGE", [21])
        .link(-10, 0, 5, "image")
        .link(5, 0, -20, "0")
        .subgraph("h", "image:IMAGE", "image:IMAGE")
    )
    graph = around(ui)
    graph.nodes[1]["type"] = "h"
    for document in (
        graph.document(outer, blur(ui)),
        graph.document({**outer, "definitions": {"subgraphs": [blur(ui)]}}),
    ):
        nodes = inputs(load(document, {}))
        assert list(nodes) == ["7", "1:5:2", "1:5:3", "9"]
        assert nodes["1:5:2"] == {"image": ["7", 0], "radius": 21, "seed": 4}
        assert nodes["9"] == {"images": ["1:5:3", 0]}


def test_straight_through(ui: UI) -> None:
    inner = ui().node(2, "A", "image:IMAGE").link(-10, 0, 2, "image").link(-10, 0, -20, "0")
    graph = around(ui, "image:IMAGE")
    nodes = inputs(load(graph.document(inner.subgraph("g", "image:IMAGE", "image:IMAGE")), {}))
    assert nodes == {"7": {}, "1:2": {"image": ["7", 0]}, "9": {"images": ["7", 0]}}


def test_an_output_that_nothing_feeds(ui: UI) -> None:
    definition = ui().node(2, "A").subgraph("g", "image:IMAGE", "image:IMAGE")
    assert inputs(load(around(ui, "image:IMAGE").document(definition), {}))["9"] == {}
    definition["outputs"] = []
    assert inputs(load(around(ui, "image:IMAGE").document(definition), {}))["9"] == {}


def test_outside_the_type_of_the_node_counts(ui: UI) -> None:
    definition = ui().node(2, "A", "image:IMAGE").link(-10, 0, 2, "image").subgraph("g", "x:*")
    graph = (
        ui()
        .node(7, "Load", "", "IMAGE MASK")
        .node(8, "Mix", "mask:MASK image:IMAGE", "IMAGE", mode=4)
        .node(1, "g", "x:*")
        .link(7, 1, 8, "mask")
        .link(7, 0, 8, "image")
        .link(8, 0, 1, "x")
    )
    assert inputs(load(graph.document(definition), {}))["1:2"] == {"image": ["7", 1]}


def test_links_decide_where_the_list_of_link_ids_is_wrong(ui: UI) -> None:
    definition = blur(ui)
    definition["outputs"][0]["linkIds"] = [404]
    assert inputs(load(around(ui).document(definition), {}))["9"] == {"images": ["1:3", 0]}


def test_names_decide_where_the_node_lists_its_inputs_differently(ui: UI) -> None:
    graph = around(ui, "extra:MASK radius*:INT image:IMAGE", [6])
    assert inputs(load(graph.document(blur(ui)), {}))["1:2"] == {"image": ["7", 0], "radius": 6, "seed": 4}
    graph = around(ui, "image:IMAGE", [6])  # the workflow inside a picture leaves out unconnected widgets
    assert inputs(load(graph.document(blur(ui)), {}))["1:2"] == {"image": ["7", 0], "radius": 6, "seed": 4}


def test_types_decide_between_equal_names(ui: UI) -> None:
    definition = (
        ui()
        .node(2, "A", "mask:MASK image:IMAGE", "IMAGE")
        .link(-10, 0, 2, "mask")
        .link(-10, 1, 2, "image")
        .link(2, 0, -20, "0")
        .subgraph("g", "x:MASK x:IMAGE", "image:IMAGE")
    )
    graph = ui().node(7, "LoadImage", "", "IMAGE MASK").node(1, "g", "x:IMAGE y:MASK", "IMAGE").link(7, 0, 1, "x")
    assert inputs(load(graph.document(definition), {}))["1:2"] == {"image": ["7", 0]}


class TestShownWidgets:
    """A subgraph's node may have the values of widgets inside, in one of several ways."""

    def radius_and_seed(self, workflow: Workflow) -> tuple[Any, Any]:
        node = workflow.nodes["1:2"].inputs
        return node["radius"], node["seed"]

    def read(self, ui: UI, values: Any, proxies: Any = None, **fields: Any) -> tuple[Any, Any]:
        if proxies is not None:
            fields["properties"] = {"proxyWidgets": proxies}
        graph = around(ui, values=values, **fields)
        workflow = load(graph.document(blur(ui)), {})
        assert workflow.to_ui() == graph.document(blur(ui))
        return self.radius_and_seed(workflow)

    def test_one_value_for_each_input_that_feeds_a_widget(self, ui: UI) -> None:
        assert self.read(ui, [30]) == (30, 4)

    def test_no_value_or_null_leaves_the_value_inside(self, ui: UI) -> None:
        assert self.read(ui, None) == (3, 4)
        assert self.read(ui, []) == (3, 4)
        assert self.read(ui, [None]) == (3, 4)

    def test_values_by_name(self, ui: UI) -> None:
        assert self.read(ui, {"radius": 31, "image": None}) == (31, 4)

    def test_named_values_are_written_where_they_were_read(self, ui: UI) -> None:
        graph = around(ui, values=[30], widgets_values_named={"radius": 32})
        host = load(graph.document(blur(ui)), {}).with_input("1:2.radius", 33).to_ui()["nodes"][1]
        assert (host["widgets_values"], host["widgets_values_named"]) == ([30], {"radius": 33})

    def test_named_values_go_before_places(self, ui: UI) -> None:
        assert self.read(ui, [30], widgets_values_named={"radius": 32}) == (32, 4)
        assert self.read(ui, [30], widgets_values_named={"radius": 30}) == (30, 4)

    def test_proxies_with_a_value_each(self, ui: UI) -> None:
        assert self.read(ui, [30, 40], [["-1", "radius"], ["2", "seed"]]) == (30, 40)
        assert self.read(ui, [40, 30], [["2", "seed"], ["2", "radius"]]) == (30, 40)
        assert self.read(ui, [None, 40], [["-1", "radius"], [2, "seed"]]) == (3, 40)

    def test_proxies_whose_values_stay_inside(self, ui: UI) -> None:
        assert self.read(ui, [], [["2", "seed"]]) == (3, 4)
        assert self.read(ui, [30], [["2", "seed"], ["-1", "radius"]]) == (30, 4)

    def test_proxies_that_lead_nowhere(self, ui: UI) -> None:
        assert self.read(ui, [1, 2, 3], [["-1", "gone"], ["99", "seed"], ["2", "$$preview"]]) == (3, 4)
        assert self.read(ui, [30], ["nonsense"]) == (30, 4)
        assert self.read(ui, [30], [["2"]]) == (30, 4)

    def test_a_connection_goes_before_the_value(self, ui: UI) -> None:
        graph = around(ui, values=[30]).node(5, "Size", "", "INT").link(5, 0, 1, "radius")
        assert self.radius_and_seed(load(graph.document(blur(ui)), {})) == (["5", 0], 4)

    def test_a_primitive_outside(self, ui: UI) -> None:
        graph = around(ui, values=[30]).node(5, "PrimitiveNode", "", "INT", [50]).link(5, 0, 1, "radius")
        assert self.radius_and_seed(load(graph.document(blur(ui)), {})) == (50, 4)

    def test_a_choice_behind_a_seed_is_skipped(self, ui: UI) -> None:
        definition = (
            ui()
            .node(2, "A", "seed*:INT n*:INT", "IMAGE", [1, "fixed", 2])
            .link(-10, 0, 2, "seed")
            .link(-10, 1, 2, "n")
            .subgraph("g", "seed:INT n:INT", "image:IMAGE")
        )
        graph = ui().node(1, "g", "seed*:INT n*:INT", "IMAGE", [8, "randomize", 9])
        assert inputs(load(graph.document(definition), {}))["1:2"] == {"seed": 8, "n": 9}

    def test_a_choice_that_is_a_value_is_not_skipped(self, ui: UI) -> None:
        definition = (
            ui()
            .node(2, "A", "seed*:INT mode*:STRING", "IMAGE", [1, "fixed", "free"])
            .link(-10, 0, 2, "seed")
            .link(-10, 1, 2, "mode")
            .subgraph("g", "seed:INT mode:STRING", "image:IMAGE")
        )
        graph = ui().node(1, "g", "seed*:INT mode*:STRING", "IMAGE", [8, "fixed"])
        assert inputs(load(graph.document(definition), {}))["1:2"] == {"seed": 8, "mode": "fixed"}

    def test_the_value_at_the_node_does_not_count_behind_a_bypassed_node(self, ui: UI) -> None:
        graph = around(ui, values=[30]).node(5, "Math", "a*:INT", "INT", [7], mode=4).link(5, 0, 1, "radius")
        assert self.radius_and_seed(load(graph.document(blur(ui)), {})) == (3, 4)

    def test_the_class_tells_what_is_a_widget(self, ui: UI, signature: Any) -> None:
        known: dict[str, NodeSignature] = {"Blur": signature("Blur", {"image": ["IMAGE"], "radius": ["INT"]})}
        definition = blur(ui)
        del definition["nodes"][0]["inputs"][1]["widget"]
        definition["nodes"][0]["widgets_values"] = [3]
        nodes = inputs(load(around(ui, values=[33]).document(definition), known))
        assert nodes["1:2"] == {"image": ["7", 0], "radius": 33}

    def nested(self, ui: UI, outer: dict[str, Any], inner: dict[str, Any]) -> tuple[Any, Any]:
        """The values of 1:5:2, where node 1 stands for h, and node 5 in it for g."""
        h = (
            ui()
            .node(5, "g", "image:IMAGE radius*:INT", "IMAGE", **inner)
            .link(-10, 0, 5, "radius")
            .link(5, 0, -20, "0")
            .subgraph("h", "radius:INT", "image:IMAGE")
        )
        graph = ui().node(1, "h", "radius*:INT", "IMAGE", **outer).document(h, blur(ui))
        node = load(graph, {}).nodes["1:5:2"].inputs
        return node["radius"], node["seed"]

    def test_nested_values(self, ui: UI) -> None:
        assert self.nested(ui, {}, {}) == (3, 4)
        assert self.nested(ui, {}, {"values": [30]}) == (30, 4)
        assert self.nested(ui, {"values": [300]}, {"values": [30]}) == (300, 4)

    def test_nested_proxies(self, ui: UI) -> None:
        inner = {"values": [40], "properties": {"proxyWidgets": [["2", "seed"]]}}
        assert self.nested(ui, {}, inner) == (3, 40)
        outer = {"values": [300], "properties": {"proxyWidgets": [["5", "radius"]]}}
        assert self.nested(ui, outer, inner) == (300, 40)

    def test_a_nested_widget_that_the_inner_node_does_not_pass_on(self, ui: UI) -> None:
        h = ui().node(5, "g", "image:IMAGE radius*:INT", "IMAGE", [30]).subgraph("h", "", "")
        outer = {"values": [300], "properties": {"proxyWidgets": [["5", "2: radius"]]}}
        graph = ui().node(1, "h", "", "", **outer).document(h, blur(ui))
        assert load(graph, {}).nodes["1:5:2"].inputs["radius"] == 300


def test_a_subgraph_that_contains_itself(ui: UI) -> None:
    g = ui().node(2, "h").subgraph("g")
    h = ui().node(3, "g").subgraph("h")
    with pytest.raises(WorkflowError, match="the subgraph 'subgraph g' contains itself"):
        load(ui().node(1, "g").document(g, h), {})


def test_subgraphs_that_multiply(ui: UI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui_module, "_MAX_NODES", 100)
    levels = [ui().node(1, f"g{i + 1}").node(2, f"g{i + 1}").subgraph(f"g{i}") for i in range(10)]
    with pytest.raises(WorkflowError, match="more than 100 nodes"):
        load(ui().node(1, "g0").document(*levels, ui().node(1, "A").subgraph("g10")), {})


def test_subgraphs_that_hold_much(ui: UI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui_module, "_MAX_NODES", 100)
    many = ui()
    for number in range(60):
        many.node(number, "A")
    assert len(load(ui().node(1, "g").document(many.subgraph("g")), {}).nodes) == 60
    with pytest.raises(WorkflowError, match="more than 100 nodes"):
        load(ui().node(1, "g").node(2, "g").document(many.subgraph("g")), {})


def test_subgraphs_that_multiply_nothing(ui: UI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui_module, "_MAX_NODES", 100)
    levels = [ui().node(1, f"g{i + 1}").node(2, f"g{i + 1}").subgraph(f"g{i}") for i in range(40)]
    with pytest.raises(WorkflowError, match="more than 100 nodes"):
        load(ui().node(1, "g0").document(*levels, ui().subgraph("g40")), {})


def test_deep_nesting(ui: UI) -> None:
    levels = [ui().node(1, f"g{i + 1}").subgraph(f"g{i}") for i in range(80)]
    with pytest.raises(WorkflowError, match="nested more than 50 deep"):
        load(ui().node(1, "g0").document(*levels, ui().node(1, "A").subgraph("g80")), {})


@pytest.mark.parametrize(
    ("definitions", "message"),
    [
        ({"subgraphs": {}}, "definitions.subgraphs is not a list"),
        ({"subgraphs": [{}]}, "subgraph 0 has no id"),
        ({"subgraphs": [{"id": "g", "nodes": []}, {"id": "g", "nodes": []}]}, "the subgraph g is defined twice"),
        ({"subgraphs": [{"id": "g", "nodes": [], "inputs": [7]}]}, "an input or output of a subgraph is malformed"),
        ({"subgraphs": [{"id": "g", "nodes": [], "inputs": [{"linkIds": 7}]}]}, "subgraph is malformed"),
    ],
)
def test_broken_definitions(ui: UI, definitions: Any, message: str) -> None:
    document = {**ui().node(1, "A").document(), "definitions": definitions}
    with pytest.raises(WorkflowError, match=message):
        load(document, {})


def test_definitions_of_something_else_are_left_alone(ui: UI) -> None:
    document = {**ui().node(1, "A").document(), "definitions": {"other": 1}}
    assert list(load(document, {}).nodes) == ["1"]
