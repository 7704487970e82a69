"""Warm-up of the reference's whole pipeline: a made-up picture is enough for every model to be loaded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from pipeline_models import write_pipeline_models

from comfy_cpu_core.results import Progress
from comfy_cpu_worker.backends.engine import EngineBackend, EngineOptions
from comfy_cpu_worker.work import Work

ROOT = Path(__file__).parent.parent.parent
WORKFLOW = ROOT / "examples" / "workflows" / "BG_remove_BEN2_simple_1st.json"
PHOTO = ROOT / "examples" / "astronaut.jpg"

for _module, _variable in (("torch", "COMFY_CPU_REQUIRE_TORCH"), ("llama_cpp", "COMFY_CPU_REQUIRE_LLAMA")):
    if find_spec(_module) is None and os.environ.get(_variable) != "1":
        pytest.skip(f"the full pipeline needs {_module}, which is not installed", allow_module_level=True)


def test_after_the_warm_up_no_model_is_loaded(
    clean_environment: dict[str, str], stand_in_models: Path, tmp_path: Path
) -> None:
    models = write_pipeline_models(shutil.copytree(stand_in_models, tmp_path / "models"), "An astronaut smiles.")
    workflow = json.loads(WORKFLOW.read_text())
    events: list[Progress] = []

    async def main() -> None:
        options = EngineOptions(models=models, workdir=tmp_path / "work")
        backend = EngineBackend(options, environ=clean_environment, workflows={"pipeline": workflow})
        try:
            await backend.start()
            assert backend.health().problem == ""
            (photo,) = {node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "LoadImage"}
            work = Work("job", workflow, files={photo: PHOTO.read_bytes()})
            result = await backend.run(work, on_event=events.append)
            assert result.status == "completed", result.errors
            assert len(result.models) == 4
            assert {use.name: use.load_seconds for use in result.models if use.load_seconds} == {}
            assert "cached" not in {event.kind for event in events if event.class_type != "LoadImage"}
        finally:
            await backend.close()

    asyncio.run(main())
