"""Lists of values in and out of nodes."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_cpu_core.errors import Interrupted
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_engine.mapping import call_over_lists, merge_returns


def signature(outputs: int = 1, output_is_list: tuple[bool, ...] = ()) -> NodeSignature:
    return NodeSignature(
        "X", (), ("INT",) * outputs, ("INT",) * outputs, output_is_list=output_is_list or (False,) * outputs
    )


def test_one_call_per_position_and_short_lists_repeat_their_last() -> None:
    calls = call_over_lists(lambda a, b: (a, b), {"a": [1, 2, 3], "b": ["x", "y"]}, as_lists=False)
    assert calls == [(1, "x"), (2, "y"), (3, "y")]


def test_no_inputs_is_one_call() -> None:
    assert call_over_lists(lambda: "called", {}, as_lists=False) == ["called"]


def test_as_lists_is_one_call_with_all() -> None:
    assert call_over_lists(lambda a, b: (a, b), {"a": [1, 2], "b": []}, as_lists=True) == [([1, 2], [])]


def test_an_empty_list_is_named() -> None:
    with pytest.raises(ValueError, match="'b' is a list without values"):
        call_over_lists(lambda a, b: None, {"a": [1], "b": []}, as_lists=False)


def test_coroutines_are_run() -> None:
    async def double(a: int) -> int:
        return 2 * a

    assert call_over_lists(double, {"a": [1, 2]}, as_lists=False) == [2, 4]


def test_the_wish_to_stop_is_heard_between_calls() -> None:
    seen: list[int] = []

    def check() -> None:
        if len(seen) == 2:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        call_over_lists(lambda a: seen.append(a) or a, {"a": [1, 2, 3]}, as_lists=False, check=check)
    assert seen == [1, 2]


def test_outputs_of_all_calls_are_joined() -> None:
    merged = merge_returns([(1, [10, 11]), (2, [12])], signature(2, (False, True)))
    assert merged.outputs == [[1, 2], [10, 11, 12]]


def test_ui_of_all_calls_is_joined() -> None:
    merged = merge_returns(
        [{"ui": {"text": ["a"]}, "result": (1,)}, {"ui": {"text": ("b",)}, "result": (2,)}], signature()
    )
    assert merged.ui == {"text": ["a", "b"]}
    assert merged.outputs == [[1, 2]]


@pytest.mark.parametrize("returned", [{}, {"ui": {}}, {"ui": {"images": []}}])
def test_a_dict_without_result_has_no_outputs(returned: Any) -> None:
    assert merge_returns([returned], signature()).outputs == []


def test_none_is_fine_where_there_are_no_outputs() -> None:
    assert merge_returns([None], signature(0)).outputs == []


@pytest.mark.parametrize("returned", [None, 5, "text", {"result": 5}])
def test_anything_but_a_tuple_is_an_error(returned: Any) -> None:
    with pytest.raises(ValueError, match="not a tuple"):
        merge_returns([returned], signature())


def test_expansion_needs_comfyui() -> None:
    with pytest.raises(ValueError, match="needs ComfyUI"):
        merge_returns([{"result": (1,), "expand": {}}], signature())


def test_more_than_the_class_declares_is_left_out() -> None:
    assert merge_returns([(1, 2, 3)], signature(2)).outputs == [[1], [2]]
