from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_cpu_core.context import Folders, RunContext, current_run, use_run
from comfy_cpu_core.errors import InputError, Interrupted, ModelError
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes import host
from comfy_cpu_nodes.runtimes import CACHE_VARIABLE, ModelCache, ModelKey
from comfy_cpu_nodes.runtimes import cache as cache_module
from comfy_cpu_nodes.runtimes.cache import cache_budget


class Fake:
    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.trimmed = self.closed = 0

    def memory_bytes(self) -> int:
        return self.size

    def trim(self) -> None:
        self.trimmed += 1

    def close(self) -> None:
        self.closed += 1


def keys(cache: ModelCache) -> list[object]:
    return [model.key for model in cache.models()]


def use(cache: ModelCache, key: str, size: int = 10) -> Fake:
    with cache.lease(key, lambda: Fake(size), expected_bytes=size) as model:
        return model


def test_a_model_is_loaded_once() -> None:
    cache = ModelCache(lambda: None)
    assert use(cache, "a") is use(cache, "a")
    assert keys(cache) == ["a"]


def test_two_threads_load_a_model_once_and_another_model_beside_it() -> None:
    cache = ModelCache(lambda: None)
    loads: list[str] = []
    other_loaded = threading.Event()

    def slow() -> Fake:
        loads.append("a")
        assert other_loaded.wait(10), "loading one model kept another from loading"
        return Fake()

    def lease_a() -> None:
        with cache.lease("a", slow):
            pass

    threads = [threading.Thread(target=lease_a) for _ in range(4)]
    for thread in threads:
        thread.start()
    use(cache, "b")
    other_loaded.set()
    for thread in threads:
        thread.join(10)
    assert loads == ["a"]
    assert set(keys(cache)) == {"a", "b"}


def test_the_least_recently_used_model_goes_first() -> None:
    cache = ModelCache(lambda: 30)
    a = use(cache, "a")
    b = use(cache, "b")
    use(cache, "c")
    use(cache, "a")
    use(cache, "d")
    assert keys(cache) == ["c", "a", "d"]
    assert (a.closed, b.closed) == (0, 1)


def test_room_is_made_before_a_model_loads() -> None:
    cache = ModelCache(lambda: 30)
    first = use(cache, "a", 20)
    closed_at_load = []

    def load() -> Fake:
        closed_at_load.append(first.closed)
        return Fake(20)

    with cache.lease("b", load, expected_bytes=20):
        pass
    assert closed_at_load == [1]


def test_a_model_in_use_is_never_dropped_even_beyond_the_budget() -> None:
    cache = ModelCache(lambda: 15)
    with cache.lease("a", Fake) as a:
        with cache.lease("b", Fake) as b:
            assert (a.closed, b.closed) == (0, 0)
            assert cache.release(drop=True) == []
        assert (a.closed, b.closed) == (0, 1)
    assert keys(cache) == ["a"]


def test_a_model_that_grew_is_counted_as_it_is_now() -> None:
    cache = ModelCache(lambda: 30)
    use(cache, "a").size = 25
    use(cache, "b")
    assert keys(cache) == ["b"]


def test_a_budget_of_nothing_keeps_nothing() -> None:
    cache = ModelCache(lambda: 0)
    assert use(cache, "a").closed == 1
    assert keys(cache) == []


def test_a_load_that_failed_is_tried_again() -> None:
    cache = ModelCache(lambda: None)

    def fail() -> Fake:
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"), cache.lease("a", fail):
        pytest.fail("the block must not run")
    assert keys(cache) == []
    assert use(cache, "a").closed == 0


def test_an_error_inside_the_block_gives_the_model_back() -> None:
    cache = ModelCache(lambda: None)
    with pytest.raises(ZeroDivisionError), cache.lease("a", Fake):
        raise ZeroDivisionError
    assert [model.in_use for model in cache.models()] == [False]


def test_release_trims_or_drops() -> None:
    cache = ModelCache(lambda: None)
    model = use(cache, "a")
    assert cache.release(drop=False) == ["a"]
    assert (model.trimmed, model.closed, keys(cache)) == (1, 0, ["a"])
    assert cache.release(drop=True) == ["a"]
    assert (model.closed, keys(cache)) == (1, [])
    assert cache.release(drop=True) == cache.release(drop=False) == []


def test_many_threads_and_a_small_budget() -> None:
    cache = ModelCache(lambda: 25)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(50):
                with cache.lease((seed * i) % 5, Fake) as model:
                    time.sleep(0)
                    assert model.closed == 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert sum(model.memory_bytes for model in cache.models()) <= 25


def test_the_budget_is_half_of_the_memory_unless_it_is_set() -> None:
    assert cache_budget({}, 1000) == 500
    assert cache_budget({}, None) is None
    assert cache_budget({CACHE_VARIABLE: " 123 "}, 1000) == 123
    assert cache_budget({CACHE_VARIABLE: "0"}, None) == 0


@pytest.mark.parametrize("value", ["-1", "4GB", "1.5", "٣", "9" * 30])
def test_a_budget_that_is_no_number_is_an_input_error(value: str) -> None:
    with pytest.raises(InputError, match=CACHE_VARIABLE) as caught:
        cache_budget({CACHE_VARIABLE: value}, 1000)
    assert caught.value.remedy


def test_a_file_that_was_replaced_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"one")
    first = ModelKey.of(path, runtime="r", precision="f32")
    assert first == ModelKey.of(path, runtime="r", precision="f32")
    path.write_bytes(b"other")
    assert first != ModelKey.of(path, runtime="r", precision="f32")
    with pytest.raises(ModelError, match="cannot be read"):
        ModelKey.of(tmp_path / "none", runtime="r", precision="f32")


# --- a run that ends while its model loads --------------------------------------------------------------------------


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class SlowLoad:
    """Loads until it is let go, and counts how often it was asked to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0
        self.started, self.go = threading.Event(), threading.Event()
        self.runs: list[RunContext | None] = []

    def __call__(self) -> Fake:
        self.calls += 1
        self.runs.append(current_run())
        self.started.set()
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return Fake()


@pytest.fixture
def interrupted(tmp_path: Path) -> Callable[[ModelCache, SlowLoad], RunContext]:
    """Lease a model in a run that is interrupted while it loads."""

    def lease(cache: ModelCache, load: SlowLoad) -> RunContext:
        def check() -> None:
            if load.started.is_set():
                raise Interrupted("enough")

        run = RunContext(Folders(tmp_path, tmp_path, tmp_path), ModelTree(tmp_path), check=check)
        asked = time.monotonic()
        with use_run(run), pytest.raises(Interrupted), cache.lease("a", load):
            pytest.fail("there is no model yet")
        assert time.monotonic() - asked < 1
        return run

    return lease


Lease = Callable[[ModelCache, SlowLoad], RunContext]


def test_an_interrupt_does_not_wait_for_a_model_and_the_next_run_finds_it(interrupted: Lease) -> None:
    cache, load = ModelCache(lambda: None), SlowLoad()
    run = interrupted(cache, load)
    assert load.runs == [run], "it loads in the run's own context"
    assert keys(cache) == []
    assert cache.release(drop=True) == [], "what is loading just now is not dropped"
    load.go.set()
    until(lambda: keys(cache) == ["a"])
    assert not cache.models()[0].in_use
    with cache.lease("a", load):
        pass
    assert load.calls == 1


def test_a_run_waits_for_a_model_that_an_earlier_one_began_to_load(interrupted: Lease) -> None:
    cache, load = ModelCache(lambda: None), SlowLoad()
    interrupted(cache, load)
    threading.Timer(0.2, load.go.set).start()
    with cache.lease("a", load) as model:
        assert isinstance(model, Fake)
    assert load.calls == 1


def test_a_model_that_nobody_wants_any_more_keeps_to_the_budget(interrupted: Lease) -> None:
    cache, load = ModelCache(lambda: 0), SlowLoad()
    interrupted(cache, load)
    load.go.set()
    until(lambda: not cache._entries)


class StoppableLoad(SlowLoad):
    """Asks all the time whether it should end."""

    def __call__(self) -> Fake:
        self.calls += 1
        self.started.set()
        while not self.go.wait(0.01):
            host.check_interrupt()
        return Fake()


def test_a_load_that_can_stop_does_so_when_nobody_waits(interrupted: Lease) -> None:
    cache, load = ModelCache(lambda: None), StoppableLoad()
    interrupted(cache, load)
    until(lambda: not cache._entries)
    assert isinstance(use(cache, "a"), Fake)


def test_a_load_goes_on_while_somebody_waits(interrupted: Lease) -> None:
    cache, load = ModelCache(lambda: None), StoppableLoad()
    models: list[Fake] = []

    def lease() -> None:
        with cache.lease("a", load) as model:
            models.append(model)

    thread = threading.Thread(target=lease)
    thread.start()
    until(load.started.is_set)
    interrupted(cache, load)
    load.go.set()
    thread.join(10)
    assert (load.calls, len(models)) == (1, 1)


def test_who_comes_while_a_load_stops_loads_anew() -> None:
    cache = ModelCache(lambda: None)
    stopping, go = threading.Event(), threading.Event()

    def stops() -> Fake:
        stopping.set()
        assert go.wait(10)
        raise cache_module._NobodyWaits("nobody waits")

    def leave() -> None:
        with pytest.raises(Interrupted), cache.lease("a", stops):
            pass

    first = threading.Thread(target=leave_when(stopping, leave))
    first.start()
    assert stopping.wait(10)
    threading.Timer(0.1, go.set).start()
    with cache.lease("a", Fake) as model:
        assert isinstance(model, Fake)
    first.join(10)


def leave_when(told: threading.Event, lease: Callable[[], None]) -> Callable[[], None]:
    """Call `lease`, which ends as soon as `told` is set."""

    def check() -> None:
        if told.is_set():
            raise Interrupted("enough")

    def run() -> None:
        with host.checked_by(check):
            lease()

    return run


def test_a_load_that_fails_with_nobody_waiting_is_tried_again(interrupted: Lease) -> None:
    cache, load = ModelCache(lambda: None), SlowLoad(ModelError("broken"))
    interrupted(cache, load)
    load.go.set()
    until(lambda: not cache._entries)
    assert isinstance(use(cache, "a"), Fake)


def test_all_that_wait_hear_of_a_failure() -> None:
    cache, load = ModelCache(lambda: None), SlowLoad(ModelError("broken"))
    failures: list[str] = []

    def lease() -> None:
        try:
            with cache.lease("a", load):
                pass
        except ModelError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=lease) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert load.started.wait(10)
    time.sleep(0.05)
    load.go.set()
    for thread in threads:
        thread.join(10)
    assert failures == ["broken"] * 3
    assert not cache._entries
