from __future__ import annotations

from comfy_cpu_worker.backoff import Backoff


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=1, longest_s=5, clock=Clock())
    assert [backoff.crashed() for _ in range(5)] == [1, 2, 4, 5, 5]


def test_they_begin_anew_after_a_process_that_ran_well() -> None:
    clock = Clock()
    backoff = Backoff(first_s=1, well_s=30, clock=clock)
    backoff.crashed()
    backoff.started()
    clock.now += 29.9
    assert backoff.crashed() == 2
    backoff.started()
    clock.now += 30
    assert backoff.crashed() == 1


def test_the_time_that_nothing_ran_does_not_count() -> None:
    clock = Clock()
    backoff = Backoff(first_s=1, well_s=30, clock=clock)
    backoff.started()
    backoff.crashed()
    clock.now += 1000
    assert backoff.crashed() == 2


def test_no_number_of_crashes_is_too_high() -> None:
    backoff = Backoff(first_s=1, longest_s=5, clock=Clock())
    assert {backoff.crashed() for _ in range(5000)} == {1, 2, 4, 5}
