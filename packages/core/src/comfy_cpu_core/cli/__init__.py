"""The command line: parse, call, print. What a command does lives elsewhere."""

from comfy_cpu_core.cli.main import build_cli, main

__all__ = ["build_cli", "main"]
