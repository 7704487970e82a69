"""What ComfyUI says of our nodes is what existing workflows expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from comfyui_server import EXTRAS, Checkout, Server, Workbench
from node_contract import CONTRACT, OWN, Contract

from comfy_cpu_nodes.comfyui import EXTRAS as MODULES_OF
from comfy_cpu_nodes.nodes import NODES

OURS = {node.class_type: node for node in NODES}
# What `nodes install` brings here, and what ComfyUI has by itself.
MODULES = {module for extra in EXTRAS for module in MODULES_OF[extra]} | {
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
}
THERE = [
    name
    for name, node in OURS.items()
    if not node.extras or any(set(MODULES_OF[extra]) <= MODULES for extra in node.extras)
]


def test_every_class_has_a_contract_or_is_ours_alone() -> None:
    assert set(OURS) - OWN == set(CONTRACT)


@pytest.mark.parametrize("class_type", THERE)
def test_the_interface(class_type: str, object_info: dict[str, Any]) -> None:
    info = object_info[class_type]
    contract = CONTRACT.get(class_type)
    if contract is not None:
        assert list(info["input"].get("required", {})) == list(contract.required)
        assert list(info["input"].get("optional", {})) == list(contract.optional)
        assert info["input"].get("hidden", {}) == dict(contract.hidden)
        for section in ("required", "optional"):
            for name, (kind, said) in getattr(contract, section).items():
                compare(info["input"][section][name], kind, said, name)
        compare_outputs(info, contract)
    for section in ("required", "optional"):
        for name, definition in info["input"].get(section, {}).items():
            assert definition[1]["tooltip"], name
    assert info["display_name"] == OURS[class_type].display_name
    assert info["category"]
    assert info["description"]
    assert info["python_module"] == "custom_nodes.comfy-cpu"


def compare(definition: list[Any], kind: Any, said: Mapping[str, Any], name: str) -> None:
    if kind is None:
        assert isinstance(definition[0], list), f"{name}: a choice of files"
    else:
        assert definition[0] == kind, name
    found = dict(definition[1])
    if isinstance(definition[0], list) and definition[0]:
        found.setdefault("default", definition[0][0])  # as the front end does
    for key, value in said.items():
        assert found.get(key) == value, (name, key)
    if "multiline" not in said:
        assert not definition[1].get("multiline", False), name
    if "forceInput" not in said:
        assert not definition[1].get("forceInput", False), f"{name}: a widget would have no place in widgets_values"


def compare_outputs(info: Mapping[str, Any], contract: Contract) -> None:
    assert list(zip(info["output_name"], info["output"], strict=True)) == list(contract.outputs)
    assert info["output_node"] is contract.output_node
    assert info.get("is_input_list", contract.of_lists) is contract.of_lists  # older ComfyUIs do not say it
    assert info["output_is_list"] == [contract.of_lists] * len(contract.outputs)


def test_nothing_else_comes_from_the_pack(object_info: dict[str, Any]) -> None:
    ours = {name for name, info in object_info.items() if info["python_module"] == "custom_nodes.comfy-cpu"}
    assert ours == set(THERE)


@pytest.mark.parametrize("class_type", THERE)
def test_help_is_where_the_front_end_looks_for_it(class_type: str, server: Server) -> None:
    page = server.fetch(f"/extensions/comfy-cpu/docs/{quote(class_type)}.md").decode()
    assert page.startswith(f"# {OURS[class_type].display_name}\n")


def test_example_workflows_are_offered(server: Server) -> None:
    names = server.get("/api/workflow_templates")["comfy-cpu"]
    assert "background_removal" in names
    for name in names:
        assert server.get(f"/api/workflow_templates/comfy-cpu/{name}.json")["nodes"]


def test_the_pack_loads_without_a_complaint(server: Server) -> None:
    lines = [line for line in server.log().splitlines() if "comfy-cpu" in line]
    assert [line for line in lines if "IMPORT FAILED" in line or "Cannot import" in line or "parse" in line] == []
    print(f"ComfyUI started in {server.start_seconds:.1f} s")
    print([line.strip() for line in lines if "seconds" in line])


def test_the_checkout_and_its_packages_stay_as_they_are(
    server: Server, checkout: Checkout, before: Any, workbench: Workbench
) -> None:
    assert checkout.files() == before.files
    assert checkout.distributions() == before.distributions
    assert workbench.distributions().items() >= before.distributions.items()
