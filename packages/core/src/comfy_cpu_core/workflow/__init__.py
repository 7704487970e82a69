"""Workflows: read in UI or API format, edit, write back."""

from comfy_cpu_core.workflow.load import load
from comfy_cpu_core.workflow.prompt import Link, PromptNode, is_link
from comfy_cpu_core.workflow.workflow import Dropped, Workflow

__all__ = ["Dropped", "Link", "PromptNode", "Workflow", "is_link", "load"]
