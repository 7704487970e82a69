"""A lock written by hand: for tests of what comes after it, where pip need not resolve anything."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from comfy_cpu_builder.lock import Lock, LockedBase, LockedPackage, plan_digest, read_lock, write_lock
from comfy_cpu_builder.pipeline import plan_for
from comfy_cpu_builder.spec import read_spec
from comfy_cpu_core.plugins import load_plugins

__all__ = ["adapt_lock", "write_small_lock"]


def write_small_lock(spec: Path, wheels: Path) -> Path:
    """Lock a spec whose models have sizes and hashes, without any package but pip, which is none; give the lock's path.

    Args:
        wheels: the cache, as `comfy_cpu_builder.packages.WheelCache` lays it out.
    """
    wanted = read_spec(spec)
    plan = plan_for(wanted, load_plugins({}, strict=True))
    content = b"no wheel"
    installer = LockedPackage("pip", "99.0", "pip-99.0-py3-none-any.whl", hashlib.sha256(content).hexdigest())
    place = wheels / "wheels" / installer.sha256 / installer.file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    base = LockedBase(plan.base, digest=f"sha256:{'b' * 64}")
    models = tuple(model.spec for model in plan.models)
    write_lock(Lock(plan_digest(plan), base, (), installer, models), wanted.lock_path)
    return wanted.lock_path


def adapt_lock(lock: Path, spec: Path, image_id: str) -> None:
    """Write a lock for a spec that differs in its base alone: the packages and models of another lock."""
    wanted = read_spec(spec)
    plan = plan_for(wanted, load_plugins({}, strict=True))
    known = read_lock(lock)
    assert known is not None
    base = LockedBase(plan.base, image_id=image_id)
    write_lock(replace(known, plan=plan_digest(plan), base=base), wanted.lock_path)
