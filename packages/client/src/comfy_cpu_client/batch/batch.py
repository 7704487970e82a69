"""`run_batch`: a workflow, many inputs, some targets, and a directory that remembers how far it got."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_cpu_client.batch.cost import Price
from comfy_cpu_client.batch.inputs import InputReader
from comfy_cpu_client.batch.jobs import JobRunner
from comfy_cpu_client.batch.journal import Journal, Recovered
from comfy_cpu_client.batch.outputs import Layout, OutputFolder
from comfy_cpu_client.batch.report import render_batch_report
from comfy_cpu_client.batch.runner import BatchRunner, ProgressSink
from comfy_cpu_client.batch.schedule import Policy, Scheduler
from comfy_cpu_client.batch.summary import BatchSummary, summarise
from comfy_cpu_client.client import Client
from comfy_cpu_client.save import check_directory
from comfy_cpu_client.targets import without_secrets
from comfy_cpu_core.errors import ComfyCpuError, InputError, TargetError, UsageError
from comfy_cpu_core.files import place_file, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfy_cpu_core.workflow import Workflow

__all__ = ["REPORT", "SUMMARY", "run_batch"]

#: What stands beside the journal in the output directory.
SUMMARY, REPORT = "summary.json", "report.html"

#: How many jobs are under way at each target, where nobody said.
_PER_TARGET = 4


def run_batch(
    workflow: str | Path | bytes | Mapping[str, Any] | Workflow,
    inputs: Sequence[str | Path] = (),
    *,
    output: str | Path,
    targets: Sequence[str | Client] | Mapping[str | Client, float] = ("embedded",),
    input: str | None = None,  # noqa: A002  # as the command line calls it
    set: Mapping[str, Any] | None = None,  # noqa: A002
    convert: bool = True,
    timeout_s: float | None = None,
    policy: Policy | None = None,
    layout: Layout = "folders",
    limit: int | None = None,
    fail_fast: bool = False,
    cut_offs: int = 1,
    resubmit_ambiguous: bool = False,
    retry_failed: bool = False,
    restart: bool = False,
    price: Price | None = None,
    comfy_org_api_key: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    on_progress: ProgressSink | None = None,
    on_recovered: Callable[[Recovered], None] | None = None,
) -> BatchSummary:
    """Run a workflow once for each input, on one or several targets.

    What was done stands in a journal in `output`: killed at any moment and called again with the same arguments, this
    goes on where it was, and every input ends with exactly one result. A summary and a report are written beside it.

    Args:
        workflow: as for `Client.run`.
        inputs: directories, globs, files, and tables (CSV, JSONL; see `comfy_cpu_client.batch.inputs`). May be left out
            to go on with a batch that was begun. New ones may be added to it.
        output: a directory; made if need be.
        targets: names, or clients that stay open; or name → weight.
        input: the ``NODE.INPUT`` that files are for; None: the workflow's one LoadImage.
        set: ``NODE.INPUT`` → a value for all inputs; a row's own value goes before it.
        convert: whether to convert the workflow for a CPU.
        timeout_s: each job's deadline, in seconds.
        policy: how many at once, how fast, how often again; by default four jobs at each target.
        layout: ``folders`` (``DIR/<input>/<file>``) or ``flat`` (``DIR/<input>_<file>``).
        limit: end after so many inputs; the next call goes on.
        fail_fast: stop at the first input that fails.
        cut_offs: how often an input may wait again because the process died while its job was under way.
        resubmit_ambiguous: submit a job again of which nobody knows whether it was accepted.
        retry_failed: first let inputs wait again whose result is a failure.
        restart: forget everything that the journal has.
        price: for what the jobs cost.
        comfy_org_api_key: for ComfyUI's paid nodes; secret, and never in the journal.
        options: name of a target → its options; see `Client`.
        on_progress: told how it goes, from this thread.
        on_recovered: told what a process left that was killed.

    Raises:
        UsageError: an unknown target; another process runs this batch; the workflow or a setting has changed since it
            began.
        InputError: the workflow or an input cannot be read; the output directory cannot be written.
        TargetError: no target is of use any more; what was done stays done.

    An interrupt cancels what is under way, lets those inputs wait again, and is passed on.
    """
    directory = Path(output)
    weights = dict(targets) if isinstance(targets, Mapping) else dict.fromkeys(targets, 1.0)
    if not weights:
        raise UsageError("a batch needs a target", remedy="name one, for example embedded")
    check_directory(directory)
    with ExitStack() as stack:
        clients: dict[str, Client] = {}
        shares: dict[str, float] = {}
        for target, weight in weights.items():
            client = target if isinstance(target, Client) else stack.enter_context(_open(target, options or {}))
            name = without_secrets(client.target)
            if name in clients:
                raise UsageError(f"the target {name} is named twice", remedy="name each target once")
            clients[name], shares[name] = client, weight
        loaded = _load(workflow, list(clients.values()))
        reader = InputReader(loaded, input)
        loaded.with_inputs(set or {})  # a wrong --set is found before anything is written
        _make(directory)
        journal = stack.enter_context(Journal(directory))
        fixed = _settings(loaded, set or {}, input, convert=convert, layout=layout)
        recovered = journal.begin({**fixed, "cut_offs": str(cut_offs)}, restart=restart)
        if on_recovered is not None and (recovered.again or recovered.failed):
            on_recovered(recovered)
        if inputs:
            journal.add(reader.read(inputs))
        if not journal.counts()["inputs"]:
            raise UsageError("which inputs?", remedy="name a directory, a glob, files, or a CSV or JSONL table")
        if retry_failed:
            journal.forget_failed()
        outputs = OutputFolder(directory, layout)
        stack.callback(outputs.close)
        runners = {
            name: JobRunner(
                name,
                client,
                loaded,
                values=set or {},
                convert=convert,
                timeout_s=timeout_s,
                outputs=outputs,
                journal_id=journal.id,
                resubmit=resubmit_ambiguous,
                comfy_org_api_key=comfy_org_api_key,
            )
            for name, client in clients.items()
        }
        policy = policy or Policy(in_flight=_PER_TARGET * len(runners))
        runner = BatchRunner(
            journal,
            Scheduler(shares, policy, random.random),
            runners,
            limit=limit,
            fail_fast=fail_fast,
            on_progress=on_progress,
        )
        try:
            runner.run()
        except ComfyCpuError:
            _write_summary(journal, loaded.name, price, directory)
            raise
        return _write_summary(journal, loaded.name, price, directory)


def _open(target: str, options: Mapping[str, Mapping[str, Any]]) -> Client:
    return Client(target, **options.get(target, {}))


def _load(workflow: str | Path | bytes | Mapping[str, Any] | Workflow, clients: Sequence[Client]) -> Workflow:
    """The workflow as it was given: the first target that can be reached says which nodes there are."""
    *others, last = clients
    for client in others:
        try:
            return client.prepare(workflow, convert=False).workflow
        except TargetError:
            continue
    return last.prepare(workflow, convert=False).workflow


def _settings(
    workflow: Workflow, values: Mapping[str, Any], key: str | None, *, convert: bool, layout: Layout
) -> dict[str, str]:
    """What must not change while a batch goes on, by what the user calls it."""
    prompt = json.dumps(workflow.to_prompt(), sort_keys=True)
    return {
        "the workflow": hashlib.sha256(prompt.encode()).hexdigest(),
        "--set": json.dumps(values, sort_keys=True, default=str),
        "--input": key or "",
        "--convert": str(convert),
        "--layout": layout,
    }


def _write_summary(journal: Journal, workflow: str, price: Price | None, directory: Path) -> BatchSummary:
    summary = summarise(journal, workflow, price)
    page = render_batch_report(summary, journal, versions=_versions())
    try:
        write_json(directory / SUMMARY, summary.to_json(), sort_keys=False)
        beside = directory / f".{REPORT}.{os.getpid()}"
        beside.write_text(page, encoding="utf-8")
        place_file(beside, directory / REPORT)
    except OSError as error:
        raise InputError(f"cannot write to {directory}: {error.strerror}", remedy="make room, and run again") from None
    return summary


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("comfy-cpu-core", "comfy-cpu-client")}


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {directory}: {error.strerror}", remedy="name another --output") from None
