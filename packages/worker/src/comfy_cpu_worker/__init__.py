"""Runs ComfyUI workflows as jobs: behind RunPod, or behind a local API that behaves as RunPod's queue does."""

from comfy_cpu_worker.outcome import JobOutcome
from comfy_cpu_worker.work import Backend, BackendHealth, Work

__all__ = ["Backend", "BackendHealth", "JobOutcome", "Work"]
