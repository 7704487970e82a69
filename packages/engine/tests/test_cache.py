"""Results kept between runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_core.results import ModelUse
from comfy_cpu_engine.cache import CachedResult, ResultCache, read_only


def result(*values: Any) -> CachedResult:
    return CachedResult([[value] for value in values])


def array(kilobytes: int) -> np.ndarray:
    return np.zeros(kilobytes * 1024, np.uint8)


def test_what_is_kept_comes_back_with_what_must_be_said_of_it() -> None:
    cache = ResultCache(10_000)
    use = ModelUse("m.onnx", "onnxruntime", "f32", 2, stand_in=True)
    cache.put("a", CachedResult([[1, "x"], [None]], (use,), ("careful",)))
    found = cache.get("a")
    assert found == CachedResult([[1, "x"], [None]], (use,), ("careful",))
    assert cache.get("b") is None


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    cache = ResultCache(35 * 1024)
    for name in "abc":
        cache.put(name, result(array(10)))
    cache.get("a")
    cache.put("d", result(array(10)))
    assert [name for name in "abcd" if cache.get(name) is not None] == ["a", "c", "d"]
    assert 30 * 1024 <= cache.used_bytes <= cache.max_bytes


def test_what_is_larger_than_the_cache_pushes_nothing_out() -> None:
    cache = ResultCache(20 * 1024)
    cache.put("small", result(array(10)))
    cache.put("large", result(array(21)))
    assert cache.get("large") is None
    assert cache.get("small") is not None


def test_no_bytes_keep_nothing() -> None:
    cache = ResultCache(0)
    cache.put("a", result(1))
    assert cache.get("a") is None


def test_a_view_costs_what_it_keeps_alive() -> None:
    cache = ResultCache(10 * 1024)
    cache.put("view", result(array(100)[:10]))
    assert cache.get("view") is None


@pytest.mark.parametrize("value", [object(), lambda: 1, {1: 2}, np.array([object()]), {"a": [object()]}])
def test_only_plain_data_are_kept(value: Any) -> None:
    cache = ResultCache(10_000)
    cache.put("a", result(value))
    assert cache.get("a") is None
    assert cache.used_bytes == 0


def test_putting_again_replaces() -> None:
    cache = ResultCache(10_000)
    cache.put("a", result(array(4)))
    once = cache.used_bytes
    cache.put("a", result(array(4)))
    assert cache.used_bytes == once


def test_a_node_cannot_change_what_others_get() -> None:
    cache = ResultCache(10_000)
    boxes = {"boxes": [1, 2]}
    cache.put("a", result(boxes, np.zeros(3)))
    boxes["boxes"].append(3)
    found = cache.get("a")
    assert found is not None
    found.outputs[0][0]["boxes"].append(4)
    with pytest.raises(ValueError, match="read-only"):
        found.outputs[1][0][0] = 1
    again = cache.get("a")
    assert again is not None
    assert again.outputs[0][0] == {"boxes": [1, 2]}


def test_read_only_leaves_the_original_as_it_is() -> None:
    original = np.zeros(3)
    view = read_only(original)
    assert not view.flags.writeable
    original[0] = 1
    assert view[0] == 1
    assert read_only("text") == "text"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 6)), max_size=40))
def test_the_bound_holds(puts: list[tuple[str, int]]) -> None:
    cache = ResultCache(8 * 1024)
    for name, kilobytes in puts:
        cache.put(name, result(array(kilobytes)))
        assert 0 <= cache.used_bytes <= cache.max_bytes
        assert cache.get(name) is not None


def test_many_threads() -> None:
    cache = ResultCache(20 * 1024)

    def work(seed: int) -> None:
        for number in range(200):
            name = str((seed * 7 + number) % 13)
            cache.put(name, result(array(number % 5)))
            cache.get(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 <= cache.used_bytes <= cache.max_bytes
