"""Stand-in language models, and a run to use them in.

What needs llama-cpp-python (compiled, not in every environment) asks for `llama_cpp` or for a fixture that does. Where
it is not installed, those tests are skipped and say so, unless COMFY_CPU_REQUIRE_LLAMA=1 forbids it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_cpu_core.context import Folders, RunContext, use_run
from comfy_cpu_core.results import Progress
from comfy_cpu_core.tree import ModelTree
from comfy_cpu_nodes.runtimes import release_models
from comfy_cpu_nodes.runtimes.llama import LlamaModel, has_library, lease_llama
from comfy_cpu_nodes.testing_llama import write_llama_stand_in

MODEL = "Meta-Llama-3.1-8B-Instruct-Q5_K_M.gguf"


@pytest.fixture(scope="session")
def llama_cpp() -> None:
    """llama-cpp-python is there."""
    if has_library():
        return
    reason = "llama-cpp-python is not installed, so nothing that runs a Llama model is tested"
    if os.environ.get("COMFY_CPU_REQUIRE_LLAMA") == "1":
        pytest.fail(f"{reason}, and COMFY_CPU_REQUIRE_LLAMA=1 forbids that", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that looks for words."""
    return write_llama_stand_in(tmp_path_factory.mktemp("llama") / MODEL)


@pytest.fixture
def events() -> list[Progress]:
    return []


@pytest.fixture
def run(tmp_path: Path, events: list[Progress]) -> Iterator[RunContext]:
    """The current run: an empty model tree."""
    context = RunContext(
        folders=Folders(tmp_path / "input", tmp_path / "output", tmp_path / "temp"),
        models=ModelTree(tmp_path / "models"),
        emit=events.append,
        node_id="25",
        class_type="Tested",
    )
    with use_run(context):
        yield context
    release_models(aggressive=True)


@pytest.fixture
def tree(run: RunContext, stand_in: Path) -> ModelTree:
    """The run's model tree, with the stand-in in it."""
    place = run.models.path(f"llm/{MODEL}")
    place.parent.mkdir(parents=True)
    place.symlink_to(stand_in)
    return run.models


@pytest.fixture
def model(llama_cpp: None, stand_in: Path) -> Iterator[LlamaModel]:
    """The stand-in, loaded and held."""
    with lease_llama(stand_in, name="stand-in") as model:
        yield model
    release_models(aggressive=True)


@pytest.fixture
def load(llama_cpp: None, tmp_path: Path) -> Iterator[Callable[..., LlamaModel]]:
    """Loads a stand-in with the options of `write_llama_stand_in`."""
    loaded: list[LlamaModel] = []

    def load(**options: Any) -> LlamaModel:
        loaded.append(LlamaModel(write_llama_stand_in(tmp_path / f"model-{len(loaded)}.gguf", **options)))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()
