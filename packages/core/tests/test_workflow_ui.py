"""From UI format to API format: nodes that do not run, and links that went through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.workflow import Dropped, Workflow, load

UI = Any  # the builder of conftest.py


def inputs(workflow: Workflow) -> dict[str, dict[str, Any]]:
    return {node_id: dict(node.inputs) for node_id, node in workflow.nodes.items()}


@pytest.mark.parametrize("as_object", [False, True], ids=["links as lists", "links as objects"])
def test_a_plain_graph(ui: UI, as_object: bool) -> None:
    graph = (
        ui()
        .node(1, "LoadImage", "image*:COMBO", "IMAGE MASK", ["a.png"], title="Photo")
        .node(2, "Blur", "image:IMAGE radius*:INT", "IMAGE", [3])
        .link(1, 0, 2, "image", as_object=as_object)
    )
    workflow = load(graph.document(), {}, name="w")
    assert workflow.to_prompt() == {
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
        "2": {"class_type": "Blur", "inputs": {"radius": 3, "image": ["1", 0]}},
    }
    assert workflow.source_format == "ui"
    assert workflow.dropped == ()
    assert workflow.guessed == ("1", "2")


def test_nodes_come_in_the_order_of_execution(ui: UI) -> None:
    graph = ui().node(1, "A", order=2).node(2, "B", order=0).node(3, "C", order=1)
    assert list(load(graph.document(), {}).nodes) == ["2", "3", "1"]
    del graph.nodes[1]["order"]
    assert list(load(graph.document(), {}).nodes) == ["1", "2", "3"]


def test_known_classes_are_not_guessed(ui: UI) -> None:
    info = {"input": {"required": {"x": ["INT"]}, "optional": {"y": ["IMAGE"]}, "hidden": {"z": "PROMPT"}}}
    known = {"A": NodeSignature.from_object_info("A", info)}
    workflow = load(ui().node(1, "A", "", "", [1]).node(2, "B").document(), known)
    assert workflow.guessed == ("2",)
    assert workflow.declared == {"1": frozenset({"x", "y"})}


def test_reroutes_disappear(ui: UI) -> None:
    graph = (
        ui()
        .node(1, "Source", "", "MASK IMAGE")
        .node(2, "Reroute", ":*", "IMAGE")
        .node(3, "Reroute", ":*", "IMAGE")
        .node(4, "Sink", "image:IMAGE")
        .node(5, "Sink", "image:IMAGE")
        .node(6, "Reroute", ":*", "*")
        .node(7, "Sink", "image:IMAGE")
        .link(1, 1, 2, "")
        .link(2, 0, 3, "")
        .link(3, 0, 4, "image")
        .link(2, 0, 5, "image")
        .link(6, 0, 7, "image")
    )
    workflow = load(graph.document(), {})
    assert inputs(workflow) == {"1": {}, "4": {"image": ["1", 1]}, "5": {"image": ["1", 1]}, "7": {}}
    assert workflow.dropped == tuple(Dropped(node_id, "Reroute", "reroute") for node_id in "236")


def test_a_class_may_be_called_reroute(ui: UI, signature: Callable[..., NodeSignature]) -> None:
    graph = ui().node(1, "Reroute", "", "IMAGE").node(2, "Sink", "image:IMAGE").link(1, 0, 2, "image")
    workflow = load(graph.document(), {"Reroute": signature("Reroute")})
    assert inputs(workflow) == {"1": {}, "2": {"image": ["1", 0]}}


def test_floating_reroutes_and_extras_change_nothing(ui: UI) -> None:
    graph = ui().node(1, "A", "", "IMAGE").node(2, "B", "x:IMAGE").link(1, 0, 2, "x")
    document = graph.document()
    plain = load(document, {}).to_prompt()
    document["extra"] = {
        "reroutes": [{"id": 1, "pos": [0, 0], "linkIds": [1]}],
        "linkExtensions": [{"id": 1, "parentId": 1}],
    }
    document["floatingLinks"] = [
        {"id": 9, "origin_id": 1, "origin_slot": 0, "target_id": -1, "target_slot": -1, "type": "IMAGE"}
    ]
    assert load(document, {}).to_prompt() == plain


def test_notes_disappear(ui: UI) -> None:
    graph = ui().node(1, "A").node(2, "Note", "", "", ["hello"]).node(3, "MarkdownNote", "", "", ["# hello"])
    workflow = load(graph.document(), {})
    assert list(workflow.nodes) == ["1"]
    assert workflow.dropped == (Dropped("2", "Note", "note"), Dropped("3", "MarkdownNote", "note"))


def test_a_primitive_gives_its_value(ui: UI, signature: Callable[..., NodeSignature]) -> None:
    known = {"A": signature("A", {"width": ["INT"], "height": ["INT"], "text": ["STRING", {"forceInput": True}]})}
    graph = (
        ui()
        .node(1, "PrimitiveNode", "", "INT", [640, "fixed"])
        .node(2, "A", "width*:INT height*:INT text:STRING", "", [1, 2])
        .node(3, "PrimitiveNode", "", "STRING", [])
        .link(1, 0, 2, "width")
        .link(1, 0, 2, "height")
        .link(3, 0, 2, "text")
    )
    workflow = load(graph.document(), known)
    assert inputs(workflow) == {"2": {"width": 640, "height": 640}}  # the empty primitive has nothing to give
    assert workflow.dropped == tuple(Dropped(node_id, "PrimitiveNode", "primitive") for node_id in "13")


def test_links_to_muted_nodes_are_deleted(ui: UI) -> None:
    graph = (
        ui()
        .node(1, "A", "", "IMAGE INT", mode=2)
        .node(2, "B", "image:IMAGE size*:INT other*:INT", "", [7, 8])
        .link(1, 0, 2, "image")
        .link(1, 1, 2, "size")
    )
    workflow = load(graph.document(), {})
    assert inputs(workflow) == {"2": {"size": 7, "other": 8}}  # a widget keeps its own value
    assert workflow.dropped == (Dropped("1", "A", "muted"),)


def test_other_modes_run(ui: UI) -> None:
    graph = ui().node(1, "A", mode=0).node(2, "A", mode=1).node(3, "A", mode=3).node(4, "A", mode="x")
    assert list(load(graph.document(), {}).nodes) == ["1", "2", "3", "4"]


class TestBypass:
    """A bypassed node's output is what comes in at the input that fits best."""

    def route(self, ui: UI, bypassed_inputs: str, outputs: str, slot: int, wanted: str) -> Any:
        """Where input x (of type `wanted`) comes from, connected to output `slot` of a bypassed node."""
        graph = ui()
        for number in range(4):
            graph.node(f"in{number}", "Source", "", "*")
        graph.node(8, "Mix", bypassed_inputs, outputs, mode=4).node(9, "Sink", f"x:{wanted}")
        for number, word in enumerate(bypassed_inputs.split()):
            graph.link(f"in{number}", 0, 8, word.partition(":")[0].rstrip("*"))
        graph.link(8, slot, 9, "x")
        workflow = load(graph.document(), {})
        assert Dropped("8", "Mix", "bypassed") in workflow.dropped
        source = workflow.nodes["9"].inputs.get("x")
        return source and source[0]

    def test_the_same_index_goes_first(self, ui: UI) -> None:
        assert self.route(ui, "a:IMAGE b:IMAGE", "IMAGE IMAGE", 1, "IMAGE") == "in1"

    def test_the_same_index_only_if_its_type_fits(self, ui: UI) -> None:
        assert self.route(ui, "a:IMAGE b:MASK", "IMAGE IMAGE", 1, "IMAGE") == "in0"

    def test_an_exact_type_before_one_that_fits(self, ui: UI) -> None:
        assert self.route(ui, "a:MASK b:IMAGE,LATENT c:IMAGE", "IMAGE", 0, "IMAGE") == "in2"

    def test_a_list_of_types_fits(self, ui: UI) -> None:
        assert self.route(ui, "a:MASK b:latent,image", "IMAGE", 0, "IMAGE") == "in1"

    def test_no_type_fits(self, ui: UI) -> None:
        assert self.route(ui, "a:MASK b:LATENT", "IMAGE", 0, "IMAGE") is None

    def test_no_inputs(self, ui: UI) -> None:
        assert self.route(ui, "", "IMAGE", 0, "IMAGE") is None
        assert self.route(ui, "", "IMAGE", 0, "*") is None

    def test_a_target_that_takes_anything(self, ui: UI) -> None:
        assert self.route(ui, "a:MASK b:LATENT", "IMAGE IMAGE", 1, "*") == "in1"
        assert self.route(ui, "a:MASK", "IMAGE IMAGE", 1, "*") == "in0"

    def test_an_output_that_the_file_does_not_list(self, ui: UI) -> None:
        assert self.route(ui, "a:MASK b:IMAGE", "", 0, "IMAGE") == "in1"

    def test_old_files_list_the_options_as_the_type(self, ui: UI) -> None:
        graph = (
            ui()
            .node(1, "Source", "", "*")
            .node(8, "Mix", "a:MASK b:x", "COMBO", mode=4)
            .node(9, "Sink", "x:COMBO")
            .link(1, 0, 8, "b")
            .link(8, 0, 9, "x")
        )
        graph.nodes[1]["inputs"][1]["type"] = ["fast", "good"]
        assert inputs(load(graph.document(), {}))["9"] == {"x": ["1", 0]}

    def test_a_chain(self, ui: UI) -> None:
        graph = (
            ui()
            .node(1, "Source", "", "IMAGE")
            .node(2, "Blur", "image:IMAGE", "IMAGE", mode=4)
            .node(3, "Reroute", ":*", "*")
            .node(4, "Blur", "mask:MASK image:IMAGE", "IMAGE", mode=4)
            .node(5, "Sink", "image:IMAGE")
            .link(1, 0, 2, "image")
            .link(2, 0, 3, "")
            .link(3, 0, 4, "image")
            .link(4, 0, 5, "image")
        )
        assert inputs(load(graph.document(), {})) == {"1": {}, "5": {"image": ["1", 0]}}

    def test_a_widget_keeps_its_value_if_nothing_comes_in(self, ui: UI) -> None:
        graph = (
            ui()
            .node(1, "Math", "a*:INT", "INT", [5], mode=4)
            .node(2, "Sink", "size*:INT", "", [7])
            .link(1, 0, 2, "size")
        )
        assert inputs(load(graph.document(), {})) == {"2": {"size": 7}}


def test_lists_are_wrapped(ui: UI) -> None:
    workflow = load(ui().node(1, "A", "colours*:COMBO", "", [["4", 0]]).document(), {})
    assert inputs(workflow) == {"1": {"colours": {"__value__": ["4", 0]}}}
    assert list(workflow.links()) == []


def break_link(document: dict[str, Any]) -> None:
    document["links"] = []


def remove_source(document: dict[str, Any]) -> None:
    document["nodes"].pop(0)


def loop(document: dict[str, Any]) -> None:
    document["nodes"][0].update(type="Reroute", inputs=[{"name": "", "type": "*", "link": 1}])


def group_node(document: dict[str, Any]) -> None:
    document["nodes"][0]["type"] = "workflow>Mine"


def same_id(document: dict[str, Any]) -> None:
    document["nodes"][0]["id"] = "2"


def no_type(document: dict[str, Any]) -> None:
    del document["nodes"][0]["type"]


def no_id(document: dict[str, Any]) -> None:
    document["nodes"][1]["id"] = None


def no_name(document: dict[str, Any]) -> None:
    del document["nodes"][1]["inputs"][0]["name"]


def inputs_object(document: dict[str, Any]) -> None:
    document["nodes"][1]["inputs"] = {}


def short_link(document: dict[str, Any]) -> None:
    document["links"] = [[1, 1]]


def negative_link(document: dict[str, Any]) -> None:
    document["links"][0][2] = -1


def too_many_values(document: dict[str, Any]) -> None:
    document["nodes"][1]["inputs"] *= 2000


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_link, "an input of node 2 is connected to the link 1, which the file does not have"),
        (remove_source, "an input of node 2 is connected to node 1, which the file does not have"),
        (loop, "an input of node 2 is connected to a loop of reroutes or bypassed nodes"),
        (group_node, r"node 1 is a group node \(workflow>Mine\)"),
        (same_id, "the node id 2 occurs twice"),
        (no_type, "node 1 has no type"),
        (no_id, "node 1 of the file has no id"),
        (no_name, "node 2 has an input without a name"),
        (inputs_object, "node 2: inputs is not a list"),
        (short_link, "a link is malformed"),
        (negative_link, "a link is malformed"),
        (too_many_values, "node 2: 2,000 inputs are absurdly many"),
    ],
)
def test_broken_graphs(ui: UI, spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    graph = ui().node(1, "A", "", "IMAGE").node(2, "B", "x:IMAGE").link(1, 0, 2, "x")
    document = graph.document()
    spoil(document)
    with pytest.raises(WorkflowError, match=message) as caught:
        load(document, {}, name="flow.json")
    assert str(caught.value).startswith("flow.json: ")
    assert caught.value.remedy


def test_what_does_not_run_may_be_broken(ui: UI) -> None:
    graph = ui().node(1, "A").node(2, "B", "x:IMAGE", mode=2).link(1, 0, 2, "x")
    graph.links[0][1] = 77
    assert list(load(graph.document(), {}).nodes) == ["1"]


def test_old_files_have_holes_and_text_in_links(ui: UI) -> None:
    graph = ui().node(1, "A", "", "IMAGE MASK").node(2, "B", "x:MASK").link(1, 1, 2, "x")
    graph.links[0][2] = "1"
    graph.links.insert(0, None)
    assert inputs(load(graph.document(), {}))["2"] == {"x": ["1", 1]}


def test_a_long_chain_of_reroutes(ui: UI) -> None:
    graph = ui().node(0, "A", "", "IMAGE")
    for number in range(1, 3000):
        graph.node(number, "Reroute", ":*", "*")
        graph.nodes[-1]["inputs"][0]["link"] = number
        graph.links.append([number, number - 1, 0, number, 0, "*"])
    graph.node("end", "B", "x:IMAGE").link(2999, 0, "end", "x")
    assert inputs(load(graph.document(), {}))["end"] == {"x": ["0", 0]}
