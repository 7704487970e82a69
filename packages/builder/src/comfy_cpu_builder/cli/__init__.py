"""The builder's commands: parse, call, print."""

from comfy_cpu_builder.cli.bake import bake
from comfy_cpu_builder.cli.build import build
from comfy_cpu_builder.cli.plan import fetch, lock, plan, render
from comfy_cpu_builder.cli.verify import verify

__all__ = ["COMMANDS"]

COMMANDS = (bake, build, fetch, lock, plan, render, verify)
