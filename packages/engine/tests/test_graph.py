"""Orders and cycles."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.workflow import PromptNode
from comfy_cpu_engine.graph import Cycle, dependencies, order


def graph(**edges: str) -> dict[str, PromptNode]:
    """``c="ab"``: node c is connected to a and b."""
    return {name: PromptNode(name, "X", {f"i{n}": [n, 0] for n in needs}) for name, needs in edges.items()}


def test_dependencies_come_first_and_only_those() -> None:
    nodes = graph(a="", b="a", c="ab", unused="c")
    assert order(["c"], nodes) == ["a", "b", "c"]


def test_what_belongs_to_one_output_stays_together() -> None:
    nodes = graph(a="", b="a", out1="b", c="a", out2="c")
    assert order(["out1", "out2"], nodes) == ["a", "b", "out1", "c", "out2"]


def test_links_to_nodes_that_do_not_exist_are_left_out() -> None:
    nodes = graph(a="z")
    assert list(dependencies(nodes["a"], nodes)) == []
    assert order(["a"], nodes) == ["a"]


@pytest.mark.parametrize(
    ("edges", "path"),
    [
        ({"a": "a"}, ("a", "a")),
        ({"a": "b", "b": "a"}, ("a", "b", "a")),
        # a takes from b, b from c, c from b: data flow from b to c and back
        ({"a": "b", "b": "c", "c": "b"}, ("b", "c", "b")),
        ({"a": "b", "b": "c", "c": "d", "d": "b"}, ("b", "d", "c", "b")),
    ],
)
def test_a_cycle_names_its_path_in_the_direction_of_the_data(edges: dict[str, str], path: tuple[str, ...]) -> None:
    nodes = graph(**edges)
    with pytest.raises(Cycle) as found:
        order(["a"], nodes)
    assert found.value.path == path
    for before, after in pairwise(path):
        assert before in set(dependencies(nodes[after], nodes))
    assert " -> ".join(path) in str(found.value)


def test_a_cycle_that_nothing_needs_does_not_matter() -> None:
    assert order(["a"], graph(a="", b="c", c="b")) == ["a"]


def test_a_chain_may_be_long() -> None:
    nodes = {str(n): PromptNode(str(n), "X", {"i": [str(n - 1), 0]} if n else {}) for n in range(20_000)}
    assert order(["19999"], nodes) == [str(n) for n in range(20_000)]


def order_or_cycle(nodes: dict[str, PromptNode]) -> list[str] | Cycle:
    try:
        return order(list(nodes), nodes)
    except Cycle as cycle:
        return cycle


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), min_size=12, max_size=12))
def test_order_or_cycle(links: list[list[int]]) -> None:
    nodes = {str(n): PromptNode(str(n), "X", {f"i{m}": [str(m), 0] for m in needs}) for n, needs in enumerate(links)}
    ordered = order_or_cycle(nodes)
    if isinstance(ordered, Cycle):
        for before, after in pairwise(ordered.path):
            assert before in set(dependencies(nodes[after], nodes))
        assert ordered.path[0] == ordered.path[-1]
        return
    assert sorted(ordered) == sorted(nodes)
    for position, node_id in enumerate(ordered):
        assert set(dependencies(nodes[node_id], nodes)) <= set(ordered[:position])
