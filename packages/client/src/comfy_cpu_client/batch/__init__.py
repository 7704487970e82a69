"""Batches: one workflow, many inputs, one or several targets, and a journal that survives whatever happens."""

from comfy_cpu_client.batch.batch import REPORT, SUMMARY, run_batch
from comfy_cpu_client.batch.cost import Cost, Price, parse_price
from comfy_cpu_client.batch.inputs import BatchInput
from comfy_cpu_client.batch.journal import JOURNAL, Recovered
from comfy_cpu_client.batch.runner import BatchProgress, TargetProgress
from comfy_cpu_client.batch.schedule import Policy
from comfy_cpu_client.batch.summary import BatchSummary, FailureGroup, Figures, TargetShare

__all__ = [
    "JOURNAL",
    "REPORT",
    "SUMMARY",
    "BatchInput",
    "BatchProgress",
    "BatchSummary",
    "Cost",
    "FailureGroup",
    "Figures",
    "Policy",
    "Price",
    "Recovered",
    "TargetProgress",
    "TargetShare",
    "parse_price",
    "run_batch",
]
