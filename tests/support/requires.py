"""Tests that need something of the machine: skipped aloud where it is not there, unless CI says that it must be."""

from __future__ import annotations

import os

import pytest

__all__ = ["require"]


def require(what: str, *, there: bool, reason: str) -> None:
    """Skip the test if `there` is false; fail if ``COMFY_CPU_REQUIRE_<WHAT>`` is set to ``1``."""
    if there:
        return
    if os.environ.get(f"COMFY_CPU_REQUIRE_{what}") == "1":
        pytest.fail(f"COMFY_CPU_REQUIRE_{what} is set, and {reason}")
    pytest.skip(f"{reason} (COMFY_CPU_REQUIRE_{what}=1 makes this a failure)")
