"""What came of a job, as every other target has it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from comfy_cpu_client.payload import Received, read_output
from comfy_cpu_client.runpod.limits import Stopping
from comfy_cpu_client.runpod.run import JobRun
from comfy_cpu_core.results import NodeFailure, Result, Status

__all__ = ["conclude", "with_figures"]

_STATUS: Mapping[Stopping, Status] = {
    "cancelled": "cancelled",
    "timed_out": "timed_out",
    "queue_limit": "timed_out",
    "stuck": "failed",
}


def conclude(run: JobRun) -> Received | Result:
    """The result of a run that is over and has no `error`; or what it is to be made from, once its outputs are there.

    Raises:
        TargetError: the job's output makes no sense.
    """
    answer = run.answer
    if answer is None or run.stopping == "timed_out" or (run.stopping is not None and answer.state == "CANCELLED"):
        return _stopped(run)
    return read_output(
        answer.output,
        state=answer.state or "",
        error=answer.error,
        queue_seconds=run.queue_seconds,
        execution_seconds=run.execution_seconds,
    )


def with_figures(result: Result, run: JobRun, price_per_second: float | None = None) -> Result:
    """The result with what the endpoint says of its times, of a worker that died and of its exceptions, and its cost.

    Args:
        price_per_second: of execution, in any currency.
    """
    answer = run.answer
    if answer is not None:
        queued = answer.delay_s if answer.delay_s is not None else result.queue_seconds
        executed = answer.execution_s if answer.execution_s is not None else result.execution_seconds
        # No longer than it took as seen from here: the endpoint's clock may have been set meanwhile.
        most = run.seconds if run.submissions else float("inf")
        result = replace(result, queue_seconds=min(queued, most), execution_seconds=min(executed, most))
        if answer.cut_off:
            again = "the worker ended while the job ran, and ran it a second time"
            result = replace(result, warnings=(*result.warnings, again))
        if answer.details and result.errors and not result.errors[0].details:
            first, *others = result.errors
            result = replace(result, errors=(replace(first, details=answer.details), *others))
    if price_per_second is not None:
        result = replace(result, estimated_cost=result.execution_seconds * price_per_second)
    return result


def _stopped(run: JobRun) -> Result:
    assert run.stopping is not None  # noqa: S101  # over, without an answer or an error
    return Result(
        _STATUS[run.stopping],
        errors=tuple(_failures(run, run.stopping)),
        warnings=() if run.confirmed or run.job_id is None else (_not_confirmed(run),),
        queue_seconds=run.queue_seconds,
        execution_seconds=run.execution_seconds,
    )


def _failures(run: JobRun, stopping: Stopping) -> list[NodeFailure]:
    match stopping:
        case "cancelled":
            before = "" if run.running else " before it began"
            failure = NodeFailure("cancelled", f"the run was cancelled{before}")
        case "timed_out":
            failure = NodeFailure(
                "deadline",
                "the run did not end before its deadline" + ("" if run.running else ": it still waited in the queue"),
                remedy="give it more time, or make the pictures or models smaller",
            )
        case "queue_limit":
            failure = NodeFailure(
                "queue_limit",
                f"the job waited {run.queue_seconds:.0f} s in the queue of {run.endpoint.where}, longer than it may, and "
                "was cancelled",
                remedy="see whether the endpoint has workers and whether they start, or give it more of them",
            )
        case "stuck":
            failure = NodeFailure(
                "stuck",
                f"{run.endpoint.where} did not end the job when its time was over; its worker may be gone",
                remedy="run it again; see the worker's log",
            )
    if not run.ambiguous:
        return [failure]
    lost = f"the job was sent to {run.endpoint.where} and there was no answer in time: it may run all the same"
    return [failure, NodeFailure("ambiguous", lost)]


def _not_confirmed(run: JobRun) -> str:
    return f"{run.endpoint.where} did not confirm that the job {run.job_id} has ended; it may still be at it"
