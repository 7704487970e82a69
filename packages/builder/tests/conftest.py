"""A plan and its lock, small and the same at every call."""

from __future__ import annotations

import pytest

from comfy_cpu_builder.lock import Lock, LockedBase, LockedPackage, plan_digest
from comfy_cpu_builder.model_plan import PlannedModel
from comfy_cpu_builder.plan import Plan
from comfy_cpu_builder.workflows import PlannedWorkflow
from comfy_cpu_core.models import ModelFile, ModelSpec
from comfy_cpu_core.workflow import PromptNode

MODEL = ModelSpec(
    id="small-model",
    source="hf:OWNER/NAME",
    revision="0123456789012345678901234567890123456789",
    licence="MIT",
    files=(ModelFile("model.onnx", "small_onnx/model.onnx", size=4, sha256="a" * 64),),
)


@pytest.fixture
def plan() -> Plan:
    nodes = {
        "1": PromptNode("1", "LoadImage", {"image": "photo.png"}),
        "2": PromptNode("2", "SmallNode", {"image": ["1", 0], "provider": "CPU"}, "a title"),
    }
    return Plan(
        target="engine",
        base="python:3.11-slim-bookworm",
        workflows=(PlannedWorkflow("cutout", nodes, uploads=("1.image",)),),
        models=(PlannedModel(MODEL, ("cutout: node 2 (SmallNode)",)),),
        requirements=("comfy-cpu-worker==0.1.0",),
        tags=("registry.example/me/cutout:1",),
        apt=("libgomp1",),
        environment={"SMALL": 'with "quotes", $HOME and \\'},
        files={"/opt/small/note.txt": "a note\n"},
        commands=(("test", "-s", "/opt/small/note.txt"), ("echo", "$HOME", "<<EOF", "it's; rm -rf /")),
        start_environment={"SMALL_MODE": "it's $(reboot)"},
    )


@pytest.fixture
def lock(plan: Plan) -> Lock:
    return Lock(
        plan=plan_digest(plan),
        base=LockedBase(plan.base, digest=f"sha256:{'b' * 64}"),
        packages=(
            LockedPackage(
                "comfy-cpu-worker", "0.1.0", "comfy_cpu_worker-0.1.0-py3-none-any.whl", "c" * 64, "Apache-2.0"
            ),
            LockedPackage(
                "numpy", "2.4.6", "numpy-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", "d" * 64, "BSD-3-Clause"
            ),
        ),
        installer=LockedPackage("pip", "26.3", "pip-26.3-py3-none-any.whl", "e" * 64, "MIT"),
        models=(MODEL,),
    )
