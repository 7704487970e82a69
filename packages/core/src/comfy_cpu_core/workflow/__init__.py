"""Workflows: read in UI or API format, edit, write back."""

from comfy_cpu_core.workflow.prompt import Link, PromptNode, is_link

__all__ = ["Link", "PromptNode", "is_link"]
