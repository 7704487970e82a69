"""One job after the other on one target: from an input's files and values to its record. For a thread each."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from comfy_cpu_client.batch.journal import Record, Waiting
from comfy_cpu_client.batch.outputs import OutputFolder
from comfy_cpu_client.batch.verdicts import Stage, Verdict, judge_error, judge_result
from comfy_cpu_client.client import Client
from comfy_cpu_client.payload import choose_outputs
from comfy_cpu_client.prepare import Prepared, add_files
from comfy_cpu_client.run import Run
from comfy_cpu_client.values import read_file
from comfy_cpu_core.errors import ComfyCpuError, DeadlineExceeded, InputError
from comfy_cpu_core.results import Result
from comfy_cpu_core.workflow import Workflow

__all__ = ["Ended", "JobRunner", "idempotency_key"]

#: How many different sets of values a workflow is kept converted for.
_KEPT = 64


@dataclass(frozen=True)
class Ended:
    """The end of a job.

    Attributes:
        place: the input's number.
        fatal: why nothing can go on: its outputs cannot be written.
    """

    place: int
    record: Record
    verdict: Verdict
    fatal: ComfyCpuError | None = field(default=None, repr=False)


def idempotency_key(journal_id: str, place: int, generation: int) -> str:
    """The key of an input's job: the same for the same job of the same batch, and for no other."""
    return hashlib.sha256(f"{journal_id}/{place}/{generation}".encode()).hexdigest()[:40]


class JobRunner:
    """Runs jobs on a target; may be used from several threads.

    Args:
        name: what the user calls the target.
        client: a client of it.
        workflow: as loaded.
        values: ``NODE.INPUT`` → value for all inputs of the batch.
        convert: whether to convert the workflow for a CPU.
        timeout_s: a job's deadline, in seconds; None for none.
        outputs: where outputs go.
        journal_id: makes the idempotency keys.
        resubmit: see `judge_error`.
        comfy_org_api_key: for ComfyUI's paid nodes; secret.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        workflow: Workflow,
        *,
        values: Mapping[str, Any],
        convert: bool,
        timeout_s: float | None,
        outputs: OutputFolder,
        journal_id: str,
        resubmit: bool,
        comfy_org_api_key: str | None = None,
    ) -> None:
        self.name = name
        self._client = client
        self._workflow = workflow
        self._values = values
        self._convert = convert
        self._timeout_s = timeout_s
        self._outputs = outputs
        self._journal_id = journal_id
        self._resubmit = resubmit
        self._comfy_org_api_key = comfy_org_api_key
        self._lock = threading.Lock()
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()
        self._runs: dict[int, Run] = {}
        self._cancelled = False

    @property
    def has_keys(self) -> bool:
        """Whether the target takes idempotency keys."""
        return self._client.has_idempotency_keys

    @property
    def keeps_jobs(self) -> bool:
        """Whether a job can be followed that another process submitted."""
        return self._client.keeps_runs

    def health(self) -> str | None:
        """None if the target is ready, else what is wrong."""
        try:
            health = self._client.health()
        except Exception as error:
            return str(error) or type(error).__name__
        return None if health.get("ready") else "it says that it is not ready"

    def cancel(self) -> None:
        """Cancel what is under way, and start nothing any more."""
        with self._lock:
            self._cancelled = True
            runs = list(self._runs.values())
        for run in runs:
            _cancel(run)

    def run(self, one: Waiting, on_submitted: Callable[[str], None]) -> Ended:
        """Run an input's job. Raises nothing: whatever happens is in what it gives.

        Args:
            on_submitted: told what the target calls the job, if it keeps jobs; from this thread.
        """
        try:
            return self._run(one, on_submitted)
        except Exception as error:
            verdict = judge_error(error, has_keys=self.has_keys)
            return Ended(one.place, self._record(verdict, None), verdict)

    def _run(self, one: Waiting, on_submitted: Callable[[str], None]) -> Ended:
        run: Run | None = None
        stage: Stage = "prepared"
        try:
            if one.job is not None:
                run = self._client.attach(one.job)
            else:
                prepared = self._prepare(one)
                stage = "submitted"
                run = self._submit(prepared, one)
            if run.id and self.keeps_jobs:
                on_submitted(run.id)
            result = self._wait(one.place, run)
        except Exception as error:
            if isinstance(error, DeadlineExceeded) and run is not None:
                _cancel(run)
            if run is not None and run.id:
                stage = "accepted"
            verdict = judge_error(error, has_keys=self.has_keys, stage=stage, resubmit=self._resubmit)
            return Ended(one.place, self._record(verdict, run), verdict)
        return self._end(one, run, result)

    def _submit(self, prepared: Prepared, one: Waiting) -> Run:
        return self._client.submit_prepared(
            prepared,
            timeout_s=self._timeout_s,
            comfy_org_api_key=self._comfy_org_api_key,
            idempotency_key=idempotency_key(self._journal_id, one.place, one.generation),
        )

    def _end(self, one: Waiting, run: Run, result: Result) -> Ended:
        verdict = judge_result(result, has_keys=self.has_keys, resubmit=self._resubmit)
        paths: list[str] = []
        fatal = None
        try:
            paths = self._outputs.save(one.folder, choose_outputs(result))
        except InputError as error:
            fatal = error
        record = Record(
            verdict.status,
            verdict.reason,
            verdict.message,
            verdict.remedy,
            self.name,
            run.id,
            paths,
            result.stand_in,
            result.queue_seconds,
            result.execution_seconds,
            tuple(result.warnings),
        )
        return Ended(one.place, record, verdict, fatal)

    def _record(self, verdict: Verdict, run: Run | None) -> Record:
        job = run.id if run is not None else None
        return Record(verdict.status, verdict.reason, verdict.message, verdict.remedy, self.name, job)

    def _prepare(self, one: Waiting) -> Prepared:
        prepared = self._converted(one.values)
        files = {key: read_file(f"input {key}", key, path) for key, path in one.files.items()}
        return add_files(prepared, files)

    def _converted(self, values: Mapping[str, Any]) -> Prepared:
        """The workflow with values set and converted: kept, since most inputs have the same or none of their own."""
        key = json.dumps(values, sort_keys=True)
        with self._lock:
            found = self._prepared.get(key)
            if found is not None:
                self._prepared.move_to_end(key)
                return found
        prepared = self._client.prepare(self._workflow, set={**self._values, **values}, convert=self._convert)
        with self._lock:
            self._prepared[key] = prepared
            while len(self._prepared) > _KEPT:
                self._prepared.popitem(last=False)
        return prepared

    def _wait(self, place: int, run: Run) -> Result:
        with self._lock:
            self._runs[place] = run
            cancelled = self._cancelled
        try:
            if cancelled:  # between the start and here
                run.cancel()
            return run.wait()
        finally:
            with self._lock:
                del self._runs[place]


def _cancel(run: Run) -> None:
    with suppress(Exception):  # that it may not be reached is no reason not to cancel the others
        run.cancel()
