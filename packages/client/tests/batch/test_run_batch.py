"""Whole batches, on a target that the tests control."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy
import pytest

from comfy_cpu_client import Client
from comfy_cpu_client import client as client_module
from comfy_cpu_client.batch import JOURNAL, REPORT, SUMMARY, BatchSummary, Policy, Price, run_batch
from comfy_cpu_client.batch.journal import Journal
from comfy_cpu_client.batch.runner import BatchRunner
from comfy_cpu_core import hookspecs
from comfy_cpu_core.errors import InputError, ModelMissing, TargetError, UsageError
from comfy_cpu_core.hookspecs import hookimpl
from comfy_cpu_core.plugins import Plugins
from comfy_cpu_core.registry import NodeRegistry
from comfy_cpu_core.results import EventSink, NodeFailure, Output, Result, RunRequest, TargetType

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "old.png"}},
    "4": {"class_type": "Cut", "inputs": {"image": ["1", 0], "sensitivity": 0.5}},
}
QUICK = Policy(in_flight=4, retry_s=0.001, down_s=0.001, down_limit_s=0.01)


@dataclass
class Job:
    id: str
    result: Result
    gate: threading.Event | None = None
    cancelled: bool = False

    def status(self) -> str:
        return "running"

    def wait(self, timeout_s: float | None = None) -> Result:
        if self.gate is not None:
            assert self.gate.wait(30), "nobody cancelled it"
        return Result("cancelled") if self.cancelled else self.result

    def cancel(self) -> None:
        self.cancelled = True
        if self.gate is not None:
            self.gate.set()


@dataclass
class Scripted:
    """A target; `script` says what becomes of the n-th job with some file."""

    script: Callable[[str, int], Result | Exception] = lambda name, number: done()
    hold: threading.Event | None = None
    requests: list[RunRequest] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    attached: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> Job:
        with self.lock:
            self.requests.append(request)
            name = "+".join(sorted(request.files)) or "none"
            self.seen[name] += 1
            number = self.seen[name]
        answer = self.script(name, number)
        if isinstance(answer, Exception):
            raise answer
        return Job(f"job-{name}-{number}", answer, self.hold)

    def health(self) -> Mapping[str, Any]:
        return {"ready": True}

    def close(self) -> None:
        pass


class Keyed(Scripted):
    has_idempotency_keys = True

    def submit(self, request: RunRequest, *, on_event: EventSink | None = None) -> Job:
        self.keys.append(request.idempotency_key)
        return super().submit(request)


class Keeping(Scripted):
    """Keeps jobs, as RunPod does, and takes no keys."""

    def attach(self, job_id: str, *, on_event: EventSink | None = None) -> Job:
        self.attached.append(job_id)
        return Job(job_id, done())

    def retry(self, job_id: str, *, on_event: EventSink | None = None) -> Job:
        raise NotImplementedError

    def purge(self) -> int:
        raise NotImplementedError


def done(text: str = "out") -> Result:
    output = Output("9", "SaveImage", "image", "out.png", "image/png", text.encode())
    return Result("completed", outputs=[output], queue_seconds=0.5, execution_seconds=2.0)


def failed(code: str) -> Result:
    return Result("failed", errors=[NodeFailure(code, f"it is {code}", "4", "Cut")])


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Scripted]]:
    """The targets ``fake://a`` and ``fake://b``, and ``fake://keyed``."""
    made = {"fake://a": Scripted(), "fake://b": Scripted(), "fake://keyed": Keyed(), "fake://keeps": Keeping()}

    class Plugin:
        @hookimpl
        def comfy_cpu_targets(self) -> list[TargetType]:
            return [TargetType("fake", lambda name, options: made[name], "for tests")]

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(Plugin(), name="test")
    plugins = Plugins(manager)
    monkeypatch.setattr(client_module, "get_plugins", lambda: plugins)
    monkeypatch.setattr(client_module, "get_registry", lambda: NodeRegistry(plugins))
    return made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(8):
        (folder / f"p{number}.png").write_bytes(f"picture {number}".encode())
    return folder


@pytest.fixture
def call(targets: dict[str, Scripted], photos: Path, tmp_path: Path) -> Callable[..., BatchSummary]:
    def run(*inputs: str | Path, **settings: Any) -> BatchSummary:
        settings = {"targets": ["fake://a"], "policy": QUICK, "output": tmp_path / "out", **settings}
        return run_batch(PROMPT, inputs or (photos,), **settings)

    return run


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[0] for path in (tmp_path / "out").iterdir() if path.is_dir())


def test_every_input_is_run_with_its_file_and_has_its_outputs(
    call: Any, targets: dict[str, Scripted], tmp_path: Path
) -> None:
    targets["fake://a"].script = lambda name, number: done(name)
    summary = call(price=Price(0.001, 4))
    assert summary.counts["completed"] == 8
    assert {request.prompt["1"]["inputs"]["image"] for request in targets["fake://a"].requests} == {
        f"p{number}.png" for number in range(8)
    }
    assert folders(tmp_path) == [f"p{number}" for number in range(8)]
    for folder in (tmp_path / "out").glob("p*-*"):
        assert (folder / "out.png").read_text() == f"{folder.name.partition('-')[0]}.png"
    assert summary.execution is not None
    assert summary.execution.p99 == 2.0
    assert summary.cost is not None
    assert summary.cost.total == pytest.approx(8 * 2.0 * 4 * 0.001)
    document = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert document == json.loads(json.dumps(summary.to_json()))
    assert "8 of 8 inputs completed" in (tmp_path / "out" / REPORT).read_text()


def test_a_second_call_runs_only_what_is_new(call: Any, targets: dict[str, Scripted], photos: Path) -> None:
    call()
    (photos / "new.png").write_bytes(b"new")
    assert call().counts["completed"] == 9
    assert len(targets["fake://a"].requests) == 9
    assert call(restart=True).counts["completed"] == 9
    assert len(targets["fake://a"].requests) == 18


def test_flat_names(call: Any, tmp_path: Path) -> None:
    call(layout="flat")
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert len(names) == 8
    assert names[0].startswith("p0-")
    assert names[0].endswith("_out.png")
    assert folders(tmp_path) == []


def test_rows_with_values_of_their_own(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    (tmp_path / "runs.jsonl").write_text('{"set": {"4.sensitivity": 0.1}}\n{"image": "photos/p3.png"}\n')
    call(tmp_path / "runs.jsonl", set={"4.sensitivity": 0.9})
    values = [request.prompt["4"]["inputs"]["sensitivity"] for request in targets["fake://a"].requests]
    assert sorted(values) == [0.1, 0.9]


@pytest.mark.parametrize("code", ["input", "invalid", "node_failed"])
def test_what_would_fail_again_is_not_tried_again(call: Any, targets: dict[str, Scripted], code: str) -> None:
    targets["fake://a"].script = lambda name, number: failed(code) if name == "p1.png" else done()
    summary = call()
    assert (summary.completed, summary.failed) == (7, 1)
    assert targets["fake://a"].seen["p1.png"] == 1
    (group,) = summary.failures
    assert (group.status, group.reason, group.label) == ("failed", code, "p1.png")
    assert group.message == f"node 4 (Cut): it is {code}"


@pytest.mark.parametrize(
    "trouble",
    [TargetError("nobody there"), failed("worker_crashed"), Result("timed_out")],
    ids=["down", "crash", "late"],
)
def test_what_may_go_well_the_next_time_is_tried_again(call: Any, targets: dict[str, Scripted], trouble: Any) -> None:
    targets["fake://a"].script = lambda name, number: trouble if number <= 2 else done()
    summary = call()
    assert summary.completed == 8
    assert sum(summary.retries.values()) == 16


def test_tries_are_bounded(call: Any, targets: dict[str, Scripted]) -> None:
    targets["fake://a"].script = lambda name, number: TargetError("nobody there") if name == "p2.png" else done()
    summary = call()
    assert (summary.completed, summary.failed) == (7, 1)
    assert targets["fake://a"].seen["p2.png"] == 1 + QUICK.retries


def test_a_block_is_no_failure(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    blocked = Result("blocked", outputs=done().outputs, errors=[NodeFailure("blocked", "Content blocked by X")])
    targets["fake://a"].script = lambda name, number: blocked if name == "p2.png" else done()
    summary = call()
    assert (summary.completed, summary.blocked, summary.failed, summary.success_rate) == (7, 1, 0, 1.0)
    assert "p2" not in folders(tmp_path)


def test_a_file_that_vanished_fails_alone(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("image\nphotos/p1.png\nphotos/gone.png\n")
    summary = call(tmp_path / "runs.csv")
    assert (summary.completed, summary.failed) == (1, 1)
    assert "there is no file" in summary.failures[0].message


def test_an_answer_that_was_lost_is_recorded_as_such(call: Any, targets: dict[str, Scripted]) -> None:
    lost = TargetError("the connection broke")
    lost.sent = True  # type: ignore[attr-defined]
    targets["fake://a"].script = lambda name, number: lost if name == "p2.png" else done()
    summary = call()
    assert summary.failures[0].reason == "ambiguous"
    assert targets["fake://a"].seen["p2.png"] == 1
    assert "see there" in summary.advice[0]
    assert call(retry_failed=True, resubmit_ambiguous=True, policy=Policy(retries=1, retry_s=0.001)).failed == 1
    assert targets["fake://a"].seen["p2.png"] == 3


def test_a_target_with_keys_is_asked_again_with_the_same_key(call: Any, targets: dict[str, Scripted]) -> None:
    lost = TargetError("the connection broke")
    lost.sent = True  # type: ignore[attr-defined]
    keyed = targets["fake://keyed"]
    keyed.script = lambda name, number: lost if name == "p2.png" and number == 1 else done()
    assert call(targets=["fake://keyed"]).completed == 8
    assert len(keyed.keys) == 9
    assert len(set(keyed.keys)) == 8


def test_a_try_that_is_over_gets_a_new_key(call: Any, targets: dict[str, Scripted]) -> None:
    keyed = targets["fake://keyed"]
    keyed.script = lambda name, number: Result("timed_out") if name == "p2.png" and number == 1 else done()
    call(targets=["fake://keyed"])
    assert len(set(keyed.keys)) == len(keyed.keys) == 9


def test_a_job_that_was_cut_off_is_followed_where_the_target_keeps_it(
    call: Any, targets: dict[str, Scripted], tmp_path: Path
) -> None:
    target = targets["fake://keeps"]
    assert isinstance(target, Keeping)
    target.hold = threading.Event()
    dead = RuntimeError("the process died here")

    def die(self: Any) -> None:
        raise dead

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchRunner, "_wind_down", die)
        target.script = lambda name, number: done() if name != "p3.png" else InputError("stop here")
        with pytest.raises(RuntimeError):
            call(targets=["fake://keeps"], fail_fast=True)
    target.hold.set()
    target.hold, target.script = None, lambda name, number: done()
    with Journal(tmp_path / "out") as journal:
        cut = journal.read("SELECT job FROM inputs WHERE state = 'running' AND job IS NOT NULL")
    assert cut
    summary = call(targets=["fake://keeps"])
    assert [group.message for group in summary.failures] == ["stop here"]
    assert summary.completed == 7
    assert sorted(target.attached) == sorted(job for (job,) in cut)


def test_a_job_that_a_target_of_another_session_has_is_run_anew(
    call: Any, targets: dict[str, Scripted], photos: Path, tmp_path: Path
) -> None:
    call(targets=["fake://keeps"], limit=1)
    with Journal(tmp_path / "out") as journal, journal.transaction():
        journal.start(2, "fake://keeps")
        journal.note_job(2, "job-of-old")
    assert call(targets=["fake://a"]).completed == 8


def test_several_targets_share_the_work_and_one_may_be_of_no_use(call: Any, targets: dict[str, Scripted]) -> None:
    targets["fake://b"].script = lambda name, number: TargetError("nobody there")
    summary = call(targets=["fake://a", "fake://b"], policy=Policy(in_flight=2, retry_s=0.001))
    assert summary.completed == 8
    assert {target.name: target.completed for target in summary.targets} == {"fake://a": 8, "fake://b": 0}


def test_a_target_without_the_model_gets_nothing_any_more(call: Any, targets: dict[str, Scripted]) -> None:
    targets["fake://b"].script = lambda name, number: ModelMissing("no such model")
    assert call(targets=["fake://a", "fake://b"], policy=Policy(in_flight=1)).completed == 8
    assert len(targets["fake://b"].requests) == 1


def test_without_any_target_it_stops_and_goes_on_later(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    targets["fake://a"].script = lambda name, number: ModelMissing("no such model")
    with pytest.raises(TargetError, match="fake://a: no such model"):
        call()
    assert json.loads((tmp_path / "out" / SUMMARY).read_text())["waiting"] == 8
    targets["fake://a"].script = lambda name, number: done()
    assert call().completed == 8


def test_limit_and_go_on(call: Any, targets: dict[str, Scripted]) -> None:
    summary = call(limit=3)
    assert (summary.completed, summary.waiting) == (3, 5)
    assert sorted(targets["fake://a"].seen) == ["p0.png", "p1.png", "p2.png"]
    assert call().completed == 8
    assert max(targets["fake://a"].seen.values()) == 1


def test_fail_fast_cancels_the_others(call: Any, targets: dict[str, Scripted]) -> None:
    target = targets["fake://a"]
    target.hold = threading.Event()
    failure = InputError("bad")
    target.script = lambda name, number: failure if name == "p0.png" else done()
    summary = call(fail_fast=True)
    assert (summary.completed, summary.failed, summary.waiting) == (0, 1, 7)
    target.hold = None
    assert call().completed == 7


def test_an_interrupt_cancels_what_is_under_way(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    target = targets["fake://a"]
    target.hold = threading.Event()

    def interrupt(progress: Any) -> None:
        if progress.in_flight:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(on_progress=interrupt)
    with Journal(tmp_path / "out") as journal:
        assert journal.counts()["waiting"] == 8
    target.hold = None
    assert call().completed == 8
    with Journal(tmp_path / "out") as journal:
        assert journal.read("SELECT sum(cut_off) FROM inputs") == [(0,)]


def test_outputs_that_cannot_be_written_stop_it(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy_cpu_client.batch import outputs

    def full(self: Any, folder: str, found: Any) -> list[str]:
        raise InputError("cannot write: no space left")

    monkeypatch.setattr(outputs.OutputFolder, "save", full)
    with pytest.raises(InputError, match="no space left"):
        call()
    monkeypatch.undo()


def test_a_workflow_that_nobody_takes_stops_it(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text(
        "".join(f'{{"id": {n}, "set": {{"4.sensitivity": {n}}}}}\n' for n in range(300))
    )
    targets["fake://a"].script = lambda name, number: failed("invalid")
    with pytest.raises(InputError, match="the first 100 inputs were refused"):
        call(tmp_path / "many.jsonl", policy=Policy(in_flight=1))


@pytest.mark.parametrize(
    ("change", "what"),
    [({"set": {"4.sensitivity": 1}}, "--set"), ({"convert": False}, "--convert"), ({"layout": "flat"}, "--layout")],
)
def test_other_settings_are_refused(call: Any, change: dict[str, Any], what: str) -> None:
    call(limit=1)
    with pytest.raises(UsageError, match=f"{what} changed"):
        call(**change)


def test_another_workflow_is_refused(call: Any, photos: Path, tmp_path: Path) -> None:
    call(limit=1)
    other = {**PROMPT, "4": {"class_type": "Cut", "inputs": {"sensitivity": 0.6}}}
    with pytest.raises(UsageError, match="the workflow changed"):
        run_batch(other, [photos], output=tmp_path / "out", targets=["fake://a"])


def test_inputs_may_be_left_out_to_go_on(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    call(limit=2)
    assert run_batch(PROMPT, output=tmp_path / "out", targets=["fake://a"]).completed == 8
    with pytest.raises(UsageError, match="which inputs"):
        run_batch(PROMPT, output=tmp_path / "empty", targets=["fake://a"])


def test_bad_inputs_leave_no_directory_of_jobs(call: Any, targets: dict[str, Scripted], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        call(tmp_path / "nothing")
    assert targets["fake://a"].requests == []


def test_a_client_runs_a_batch_and_stays_open(targets: dict[str, Scripted], photos: Path, tmp_path: Path) -> None:
    with Client("fake://a") as client:
        summary = client.batch(PROMPT, [photos], output=tmp_path / "out", limit=1)
        assert summary.completed == 1
        assert client.health() == {"ready": True}


def test_a_target_named_twice(call: Any, targets: dict[str, Scripted]) -> None:
    with Client("fake://a") as client, pytest.raises(UsageError, match="named twice"):
        call(targets=[client, "fake://a"])


def test_progress_is_told(call: Any) -> None:
    told: list[Any] = []
    call(on_progress=told.append)
    assert told[-1].ended == told[-1].inputs == 8
    assert told[-1].in_flight == 0
    assert told[-1].targets[0].name == "fake://a"


def test_the_journal_lies_in_the_output_directory(call: Any, tmp_path: Path) -> None:
    call()
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_file()} == {JOURNAL, SUMMARY, REPORT}
