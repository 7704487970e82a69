"""The scheduling core: examples, and properties under every order of events that hypothesis thinks of."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_cpu_client.batch.schedule import Again, Ask, Item, Policy, Scheduler, Start
from comfy_cpu_client.batch.verdicts import Verdict

GOOD = Verdict("completed")
BAD = Verdict("failed", "unreachable", "nobody there", again="fresh", target="bad")
LOST = Verdict("failed", "lost", "who knows", again="same", target="bad")
BUSY = Verdict("failed", "busy", "later", again="fresh", target="busy", counts=False, retry_after_s=5.0)
GONE = Verdict("failed", "refused", "wrong key", again="fresh", target="gone", counts=False)
INVALID = Verdict("failed", "invalid", "no such input")


def scheduler(*targets: str, **policy: Any) -> Scheduler:
    return Scheduler(dict.fromkeys(targets or ("a",), 1.0), Policy(**policy), lambda: 1.0)


def starts(core: Scheduler, now: float) -> list[tuple[int, str]]:
    return [(action.item.place, action.target) for action in core.actions(now) if isinstance(action, Start)]


def test_no_more_in_flight_than_allowed() -> None:
    core = scheduler(in_flight=2)
    for place in range(1, 5):
        core.offer(Item(place))
    assert starts(core, 0) == [(1, "a"), (2, "a")]
    assert starts(core, 0) == []
    assert core.ended(1, GOOD, 1) is None
    assert starts(core, 1) == [(3, "a")]


def test_starts_keep_to_the_rate() -> None:
    core = scheduler(in_flight=10, rate=2.0)
    for place in range(5):
        core.offer(Item(place))
    assert starts(core, 0.0) == [(0, "a")]
    assert core.wake_at(0.0) == 0.5
    assert starts(core, 0.4) == []
    assert starts(core, 0.5) == [(1, "a")]


def test_tries_wait_longer_and_longer_and_end() -> None:
    core = scheduler("a", "b", retries=2, retry_s=1.0)
    core.offer(Item(1))
    core.actions(0)
    first = core.ended(1, BAD, 0)
    assert first == Again(Item(1, failures=1), at=1.0, same=False)
    assert core.wake_at(0) == 1.0
    assert len(starts(core, 1)) == 1
    second = core.ended(1, BAD, 1)
    assert second is not None
    assert second.at == 3.0
    assert len(starts(core, 3)) == 1
    assert core.ended(1, BAD, 3) is None
    assert core.idle


def test_an_input_that_is_bad_is_not_tried_again() -> None:
    core = scheduler()
    core.offer(Item(1))
    core.actions(0)
    assert core.ended(1, INVALID, 0) is None
    assert core.targets["a"].health == 1.0


def test_a_job_that_may_be_there_goes_to_the_same_target_only() -> None:
    core = scheduler("a", "b", retry_s=1.0)
    core.offer(Item(1, target="b"))
    assert starts(core, 0) == [(1, "b")]
    again = core.ended(1, LOST, 0)
    assert again is not None
    assert again.same
    assert again.item.target == "b"
    core.targets["b"].until = 50.0  # it is busy: the other one must not get it
    assert starts(core, 10) == []
    assert starts(core, 50) == [(1, "b")]


def test_it_goes_elsewhere_once_that_target_is_gone() -> None:
    core = scheduler("a", "b", in_flight=1)
    core.offer(Item(1, target="b"))
    core.offer(Item(2, target="b"))
    core.actions(0)
    core.ended(1, GONE, 0)
    assert starts(core, 0)[0][1] == "a"
    core.ended(1, GOOD, 0)
    assert starts(core, 0) == [(2, "a")]


def test_a_target_of_another_session_binds_nobody() -> None:
    core = scheduler("a")
    core.offer(Item(1, target="gone since"))
    assert starts(core, 0) == [(1, "a")]


def test_work_is_shared_by_weight() -> None:
    core = Scheduler({"a": 3.0, "b": 1.0}, Policy(in_flight=8), lambda: 1.0)
    for place in range(8):
        core.offer(Item(place))
    assert Counter(target for _, target in starts(core, 0)) == {"a": 6, "b": 2}


def test_a_target_that_fails_gets_less_then_nothing_and_is_asked_again() -> None:
    core = scheduler("a", "b", in_flight=2, down_s=1.0, retries=0)
    place = 0
    for _ in range(3):
        core.offer(Item(place))
        core.targets["a"].in_flight += 10  # so that b gets it
        assert starts(core, 0) == [(place, "b")]
        core.targets["a"].in_flight -= 10
        core.ended(place, BAD, 0)
        place += 1
    assert core.targets["b"].health == pytest.approx(0.512)
    assert core.targets["b"].state == "down"
    for _ in range(2):
        core.offer(Item(place))
        place += 1
    assert {target for _, target in starts(core, 0.5)} == {"a"}
    assert core.actions(1.0) == [Ask("b")]
    assert core.actions(1.0) == []
    core.answered("b", "not ready", 1.0)
    assert core.wake_at(1.0) == 3.0  # twice as long
    assert core.actions(3.0) == [Ask("b")]
    core.answered("b", None, 3.0)
    core.ended(place - 1, GOOD, 3.0)
    core.ended(place - 2, GOOD, 3.0)
    for _ in range(2):
        core.offer(Item(place))
        place += 1
    assert sorted(target for _, target in starts(core, 3.0)) in (["a", "a"], ["a", "b"])  # b: one at most


def test_one_job_tries_a_target_that_says_it_is_well() -> None:
    core = scheduler("a", in_flight=4, retries=0, down_s=1.0)
    for place in range(8):
        core.offer(Item(place))
    core.actions(0)
    for place in range(4):
        core.ended(place, BAD, 0)
    assert core.targets["a"].state == "down"
    core.actions(1)
    core.answered("a", None, 1)
    assert starts(core, 1) == [(4, "a")]
    core.ended(4, GOOD, 2)
    assert starts(core, 2) == [(5, "a"), (6, "a"), (7, "a")]


def test_a_busy_target_is_left_alone_as_long_as_it_wants() -> None:
    core = scheduler("a", in_flight=2)
    core.offer(Item(1))
    core.actions(0)
    again = core.ended(1, BUSY, 0)
    assert again is not None
    assert again.item.failures == 0
    assert starts(core, 4.9) == []
    assert core.wake_at(4.9) == 5.0
    assert starts(core, 5.0) == [(1, "a")]


def test_it_is_hopeless_when_all_targets_are_gone() -> None:
    core = scheduler("a", "b", in_flight=1)
    for place in (1, 2):
        core.offer(Item(place))
    for _ in range(2):
        ((place, _),) = starts(core, 0)
        assert not core.hopeless(0)
        core.ended(place, GONE, 0)
    assert core.hopeless(0)


def test_it_is_hopeless_when_no_target_does_anything_for_too_long() -> None:
    core = scheduler("a", in_flight=3, retries=9, give_up_s=100.0)
    for place in (1, 2, 3):
        core.offer(Item(place))
    core.actions(0)
    for place in (1, 2, 3):
        core.ended(place, BAD, 10)
    assert not core.hopeless(109.9)
    assert core.hopeless(110)


def test_waiting_for_the_next_try_is_not_hopeless() -> None:
    core = scheduler("a", retry_s=1000.0, retry_limit_s=1000.0, give_up_s=1.0)
    core.offer(Item(1))
    core.actions(0)
    core.ended(1, BAD, 0)
    assert not core.hopeless(900)


VERDICTS = st.sampled_from([GOOD] * 4 + [BAD, LOST, BUSY, INVALID])


@settings(deadline=None)  # nothing here is to be timed
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([None, 0.5, 20.0]),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
    st.data(),
)
def test_every_input_ends_once_within_the_bounds(
    inputs: int, in_flight: int, retries: int, rate: float | None, targets: list[str], data: st.DataObject
) -> None:
    """A world in which jobs end in any order and any way, until faults cease: all inputs end, exactly once."""
    policy = Policy(in_flight=in_flight, retries=retries, rate=rate, give_up_s=1e5)
    core = Scheduler(dict.fromkeys(targets, 1.0), policy, lambda: 0.5)
    waiting, flying, ended = list(range(inputs)), {}, Counter[int]()
    tries: Counter[int] = Counter()
    bound: dict[int, str] = {}
    started: list[float] = []
    now, steps = 0.0, 0
    while not (core.idle and not waiting):
        steps += 1
        assert steps < 2000, "it does not end"
        while waiting and core.wants:
            core.offer(Item(waiting.pop(0)))
        actions = core.actions(now)
        for action in actions:
            if isinstance(action, Ask):
                core.answered(action.target, None if steps > 60 else data.draw(st.sampled_from([None, "no"])), now)
                continue
            place = action.item.place
            assert place not in flying
            assert not ended[place]
            assert bound.pop(place, action.target) == action.target
            flying[place] = action.target
            started.append(now)
        assert len(flying) == core.in_flight <= in_flight
        if flying and (steps > 60 or data.draw(st.booleans())):
            place = data.draw(st.sampled_from(sorted(flying)))
            verdict = GOOD if steps > 60 else data.draw(VERDICTS)
            target = flying.pop(place)
            tries[place] += verdict.counts
            again = core.ended(place, verdict, now)
            if again is None:
                ended[place] += 1
            else:
                assert again.at >= now
                if again.same:
                    bound[place] = target
            continue
        if actions:
            continue
        wake = core.wake_at(now)
        assert wake is not None or flying, "nothing would ever happen"
        now = wake if wake is not None else now + 0.1
    assert ended == Counter(dict.fromkeys(range(inputs), 1))
    assert max(tries.values()) <= retries + 1
    if rate is not None:
        gaps = [later - earlier for earlier, later in itertools.pairwise(started)]
        assert min(gaps, default=1 / rate) >= 1 / rate - 1e-9


@settings(deadline=None)
@given(st.lists(VERDICTS, max_size=100))
def test_what_is_held_is_bounded(verdicts: list[Verdict]) -> None:
    core = scheduler("a", "b", in_flight=4, retries=10**6, retry_s=1e6, retry_limit_s=1e6)
    place = 0
    for verdict in verdicts:
        for _ in range(core.wants):
            core.offer(Item(place))
            place += 1
        for action in core.actions(0):
            if isinstance(action, Start):
                core.ended(action.item.place, verdict, 0)
        assert core.held <= 256 + 4


@settings(deadline=None)
@given(st.lists(st.sampled_from(["good", "bad", "busy", "wait"]), max_size=60))
def test_health_stays_between_its_bounds_and_a_target_always_comes_back(events: list[str]) -> None:
    core = scheduler("a", down_limit_s=60.0)
    target, now = core.targets["a"], 0.0
    for event in events:
        match event:
            case "good":
                target.good()
            case "bad":
                target.bad(now, "x")
            case "busy":
                target.busy(now, "x", None)
            case "wait":
                now += 10
        assert 0 < target.health <= 1
    now += 61
    core.actions(now)
    core.answered("a", None, now)
    assert target.takes(now)
