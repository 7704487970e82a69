"""`load`: which format a document is in, API format, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_core.errors import WorkflowError
from comfy_cpu_core.workflow import Link, load

API = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}},
    "10": {"class_type": "Blur", "inputs": {"image": ["1", 0], "radius": 2}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["10", 0]}},
}

# Node ids and names as ComfyUI and its users make them, and ones that nobody should.
names = st.text(min_size=1, max_size=8).filter(lambda text: text != "prompt")
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@st.composite
def prompts(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    links = st.tuples(st.sampled_from(ids), st.integers(0, 3)).map(list)
    values = plain | links | st.fixed_dictionaries({"__value__": st.lists(plain)})
    nodes = st.fixed_dictionaries(
        {"class_type": names, "inputs": st.dictionaries(names, values, max_size=4)},
        optional={"_meta": names.map(lambda title: {"title": title})},
    )
    return {node_id: draw(nodes) for node_id in ids}


def test_api_format_keeps_order_titles_and_links() -> None:
    workflow = load(API, {})
    assert list(workflow.nodes) == ["1", "10", "2"]
    assert workflow.nodes["1"].title == "Photo"
    assert list(workflow.links()) == [("10", "image", Link("1", 0)), ("2", "images", Link("10", 0))]
    assert (workflow.source_format, workflow.ui, workflow.dropped, workflow.guessed) == ("api", None, (), ())


@given(prompts())
def test_api_format_survives_a_round_trip(prompt: dict[str, Any]) -> None:
    workflow = load(json.dumps(prompt).encode(), {})
    assert workflow.to_prompt() == prompt
    assert load(workflow.to_prompt(), {}) == workflow


@given(prompts())
def test_the_prompt_may_be_changed(prompt: dict[str, Any]) -> None:
    workflow = load(prompt, {})
    for node in workflow.to_prompt().values():
        node["inputs"]["new"] = 1
        for value in node["inputs"].values():
            if isinstance(value, list | dict):
                value.clear()
    assert workflow.to_prompt() == prompt


def test_what_is_posted_to_comfyui() -> None:
    assert load({"prompt": API, "client_id": "x", "extra_data": {}}, {}).to_prompt() == API


def test_a_node_may_be_called_prompt() -> None:
    assert list(load({"prompt": API["1"]}, {}).nodes) == ["prompt"]


def test_name_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(API))
    assert load(path, {}).name == "flow.json"
    assert load(path, {}, name="mine").name == "mine"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "neither a workflow in UI format nor in API format"),
        ("text", "neither a workflow in UI format nor in API format"),
        ({"hello": "world"}, "neither a workflow in UI format nor in API format"),
        ({"nodes": {}}, "neither a workflow in UI format nor in API format"),
        ({"a": {"b": {}}}, "neither a workflow in UI format nor in API format"),
        ({}, "the workflow is empty"),
        ({"nodes": []}, "the workflow is empty"),
        ({"prompt": {}}, "the workflow is empty"),
        ({"1": {"inputs": {}}}, "node 1 has no class_type"),
        ({"1": {"class_type": "", "inputs": {}}}, "node 1 has no class_type"),
        ({"1": {"class_type": 7, "inputs": {}}}, "node 1 has no class_type"),
        ({**API, "version": 3}, "the entry 'version' is no node"),
        ({"1": {"class_type": "A", "inputs": []}}, r"the inputs of node 1 \(A\) are no object"),
        (
            {"1": {"class_type": "A", "inputs": {"image": ["9", 0]}}},
            r"input image of node 1 \(A\) is connected to node '9', which the workflow does not have",
        ),
        ({"1": {"class_type": "A", "inputs": {"x": ["1", -1]}}}, r"input x of node 1 \(A\) is connected to output -1"),
        ({"1": {"class_type": "A", "inputs": {"x": ["1", 0.5]}}}, "is connected to output 0.5"),
        ({"nodes": [{"id": 1, "type": "Note", "mode": 0}]}, "no node is left to run: note"),
        ({"nodes": [{"id": 1, "type": "A", "mode": 2}]}, "no node is left to run: muted"),
    ],
)
def test_what_is_no_workflow(document: Any, message: str) -> None:
    with pytest.raises(WorkflowError, match=message) as caught:
        load(json.dumps(document).encode(), {}, name="flow.json")
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_inputs_may_be_left_out_and_lists_are_no_links() -> None:
    prompt = {"1": {"class_type": "A"}, "2": {"class_type": "B", "inputs": {"x": ["1", True], "y": [1, 2], "z": ["1"]}}}
    assert list(load(prompt, {}).links()) == []


json_values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=25,
)
# Values where the format has fields of its own, so that the fuzz gets past the first check.
field_names = st.sampled_from(
    [
        "id",
        "type",
        "mode",
        "order",
        "inputs",
        "outputs",
        "name",
        "link",
        "links",
        "widget",
        "widgets_values",
        "nodes",
        "definitions",
        "subgraphs",
        "properties",
        "proxyWidgets",
        "linkIds",
        "inputNode",
        "class_type",
        "origin_id",
        "origin_slot",
        "target_id",
        "target_slot",
        "widgets_values_named",
        "title",
        "_meta",
        "prompt",
    ]
)
field_values = st.sampled_from([0, 1, 2, 4, -10, -20, "1", "Reroute", "PrimitiveNode", "A", "g", None, "*", "INT"])
near_misses = st.recursive(
    field_values | plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names, inner, max_size=8),
    max_leaves=40,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=4), json_values, max_size=3) | st.dictionaries(field_names, near_misses))
def test_any_json_gives_a_workflow_or_a_workflow_error(document: dict[str, Any]) -> None:
    try:
        workflow = load(document, {})
    except WorkflowError:
        return
    assert load(workflow.to_prompt(), {}).nodes == workflow.nodes


@st.composite
def ui_documents(draw: st.DrawFn) -> dict[str, Any]:
    """Graphs that are nearly right: connected at random, also in loops, through subgraphs, to what is not there."""
    kinds = st.sampled_from(["A", "A", "A", "B", "Reroute", "PrimitiveNode", "Note", "g", "h"])
    proxies = st.lists(st.tuples(st.sampled_from(["-1", "1", "2"]), st.sampled_from("xyz")).map(list), max_size=3)

    def graph(ids: list[int], *, inside: bool) -> dict[str, Any]:
        # Nearly all links come from a node of the graph; what they say of their target does not matter.
        origins = st.sampled_from([*ids * 4, *([-10] * 4 if inside else []), 99])
        links = draw(st.lists(st.tuples(origins, st.integers(0, 2)), min_size=3, max_size=8))
        slot = st.fixed_dictionaries(
            {
                "name": st.sampled_from("xyz"),
                "type": st.sampled_from(["IMAGE", "IMAGE", "INT", "*", "INT,FLOAT"]),
                "link": st.none() | st.integers(1, len(links)),
            },
            optional={"widget": st.sampled_from("xyz").map(lambda name: {"name": name})},
        )
        node = st.fixed_dictionaries(
            {
                "type": kinds,
                "mode": st.sampled_from([0, 0, 0, 0, 0, 2, 4]),
                "inputs": st.lists(slot, max_size=3),
                "outputs": st.lists(st.sampled_from(["IMAGE", "INT"]).map(lambda t: {"type": t}), max_size=2),
                "widgets_values": st.lists(plain, max_size=4) | st.dictionaries(st.sampled_from("xyz"), plain),
                "properties": proxies.map(lambda entries: {"proxyWidgets": entries}),
            }
        )
        nodes = [{"id": node_id, **draw(node)} for node_id in ids]
        rows = [[number, origin, slot, -20, slot, "*"] for number, (origin, slot) in enumerate(links, 1)]
        ports = [{"name": name, "type": "*", "linkIds": [1, 2]} for name in "xyz"[: draw(st.integers(0, 3))]]
        return {"nodes": nodes, "links": rows, **({"inputs": ports, "outputs": ports} if inside else {})}

    root = graph([1, 2, 3], inside=False)
    subgraphs = [{"id": name, **graph([1, 2], inside=True)} for name in "gh"]
    return {**root, "definitions": {"subgraphs": subgraphs}}


@settings(max_examples=60)
@given(ui_documents())
def test_any_graph_gives_a_workflow_or_a_workflow_error(document: dict[str, Any]) -> None:
    try:
        workflow = load(document, {})
    except WorkflowError:
        return
    assert load(workflow.to_prompt(), {}).nodes == workflow.nodes  # every connection leads to a node that is there
    assert workflow.to_ui() == document
