from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import Interrupted, ModelCorrupt, ModelError, ModelMissing
from comfy_cpu_core.resources import get_resources
from comfy_cpu_nodes.ops.forms import SAFETY_FORMS, quoted
from comfy_cpu_nodes.runtimes import loaded_models, release_models
from comfy_cpu_nodes.runtimes.llama import LlamaModel, fill_in, form_tokens, lease_llama, runtime_name
from comfy_cpu_nodes.runtimes.llama.compute import Compute
from comfy_cpu_nodes.testing_llama import write_llama_stand_in

Load = Callable[..., LlamaModel]


def test_the_run_learns_what_was_used(llama_cpp: None, stand_in: Path, run: RunContext) -> None:
    for _ in range(2):
        with lease_llama(stand_in, name="llm/model.gguf"):
            pass
    (use,) = run.model_uses
    assert (use.name, use.runtime, use.stand_in) == ("llm/model.gguf", runtime_name(), True)
    assert use.runtime.startswith("llama.cpp 0.")
    assert use.precision == "all F32"
    assert use.threads == get_resources().threads
    assert use.load_seconds > 0
    assert [warning for warning in run.warnings if "STAND-IN" in warning] == run.warnings


def test_one_copy_serves_every_size_of_context(llama_cpp: None, stand_in: Path) -> None:
    release_models(aggressive=True)
    with lease_llama(stand_in, name="a") as first:
        first.context("one", 1024)
    with lease_llama(stand_in, name="b") as second:
        second.context("two", 4096)
        second.context("one", 100)
    assert first is second
    assert [loaded.key.path for loaded in loaded_models()] == [stand_in]  # type: ignore[attr-defined]
    release_models(aggressive=True)
    assert loaded_models() == []


def test_a_file_that_was_replaced_is_another_model(llama_cpp: None, tmp_path: Path) -> None:
    path = write_llama_stand_in(tmp_path / "model.gguf")
    with lease_llama(path, name="a") as first:
        before = first.fingerprint
    write_llama_stand_in(path, random=3)
    with lease_llama(path, name="a") as second:
        assert second is not first
        assert second.fingerprint != before
    release_models(aggressive=True)


def test_contexts_are_given_back_and_made_anew(model: LlamaModel) -> None:
    weights = model.memory_bytes()
    small = model.context("a", 300)
    assert small.size == 512, "sizes are rounded up, so that texts of similar length share a context"
    assert model.context("a", 512) is small
    assert model.memory_bytes() == weights + small.memory_bytes
    large = model.context("a", 513)
    assert large is not small
    assert large.memory_bytes > small.memory_bytes
    model.trim()
    assert model.memory_bytes() == weights


def test_users_wait_for_each_other_and_may_give_up(model: LlamaModel, run: RunContext) -> None:
    """The fixture holds the model; the run is cancelled while it waits."""

    def check() -> None:
        raise Interrupted("cancelled")

    run.check = check
    with pytest.raises(Interrupted), model.exclusively():
        pytest.fail("nobody else may hold it")


def test_loading_can_be_interrupted(llama_cpp: None, stand_in: Path, run: RunContext) -> None:
    entered = threading.Event()

    def check() -> None:
        entered.set()
        raise Interrupted("cancelled")

    compute = Compute()
    run.check = check
    with pytest.raises(Interrupted):
        compute.call(lambda: [entered.wait(5), _until(lambda: compute.stopped)])
    compute.close()
    assert entered.is_set()


def _until(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    while not condition():
        deadline.wait(0.01)


def test_what_the_thread_raises_arrives(llama_cpp: None) -> None:
    compute = Compute()
    with pytest.raises(ZeroDivisionError):
        compute.call(lambda: 1 // 0)
    assert compute.call(lambda: threading.current_thread().name).startswith("comfy-cpu-llama")
    compute.close()


def test_a_missing_file(llama_cpp: None, tmp_path: Path) -> None:
    with (
        pytest.raises(ModelMissing, match=r"nothing.gguf does not exist"),
        lease_llama(tmp_path / "nothing.gguf", name="a"),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"GG", b"not a model at all", b"\x7fELF" * 100])
def test_a_file_that_is_no_gguf(llama_cpp: None, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelCorrupt, match="is no GGUF file") as error:
        LlamaModel(path)
    assert "models verify" in (error.value.remedy or "")


@pytest.mark.parametrize("part", [0.0001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(llama_cpp: None, tmp_path: Path, part: float) -> None:
    path = write_llama_stand_in(tmp_path / "model.gguf")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelCorrupt, match=r"cannot be loaded by llama\.cpp: ") as error:
        LlamaModel(path)
    assert "it does not say why" not in str(error.value)


def test_a_file_that_is_a_folder(llama_cpp: None, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        LlamaModel(tmp_path)


def test_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy_cpu_nodes.runtimes.llama import library

    real = library.import_module

    def missing(name: str) -> object:
        if name == "llama_cpp":
            raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
        return real(name)

    library.load_library.cache_clear()
    monkeypatch.setattr(library, "import_module", missing)
    (tmp_path / "model.gguf").touch()
    lease = lease_llama(tmp_path / "model.gguf", name="a")
    with pytest.raises(ModelError, match="llama-cpp-python is not installed") as error, lease:
        pass
    assert "pip install 'comfy-cpu-nodes[llama]'" in (error.value.remedy or "")


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to load shared library"), OSError("libgomp.so.1: cannot open"), ImportError("no")]
)
def test_a_library_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    from comfy_cpu_nodes.runtimes.llama import library

    def broken(name: str) -> object:
        raise error

    library.load_library.cache_clear()
    monkeypatch.setattr(library, "import_module", broken)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelError, match=f"cannot be used: {error}"), lease_llama(tmp_path / "model.gguf", name="a"):
        pass


def test_the_environment_is_left_as_it_was(llama_cpp: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy_cpu_nodes.runtimes.llama import library

    seen: list[str | None] = []
    real = library.import_module

    def note(name: str) -> object:
        seen.append(os.environ.get("GOMP_SPINCOUNT"))
        return real(name)

    monkeypatch.setattr(library, "import_module", note)
    for given in ({}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        before = dict(os.environ)
        library.load_library.cache_clear()
        library.load_library()
        assert dict(os.environ) == before
    assert seen == ["1000", "7", None]


@pytest.mark.parametrize("space_first", [False, True])
@pytest.mark.parametrize("text", ["", "a", " a", "a boat", "\n\n{", "ein Bär 🐻", "\0", "<|eot_id|>", "</s><s>"])
def test_tokens_are_the_text(load: Load, text: str, space_first: bool) -> None:
    model = load(space_first=space_first)
    tokens = model.tokenize(text)
    assert b"".join(map(model.piece, tokens)).decode() == text
    assert not any(map(model.is_control, tokens))


def test_the_vocabulary(model: LlamaModel) -> None:
    assert len(model.pieces) == len(model.control_tokens) == model.vocabulary_size
    assert model.start == (1,)
    assert model.control_token("<|eot_id|>") is not None
    assert model.control_token("<|im_end|>") is None
    assert model.control_token("thing") is None
    legal, quotes = model.string_tokens
    said = {piece: (bool(ok), int(quote)) for piece, ok, quote in zip(model.pieces, legal, quotes, strict=True)}
    assert said[b"thing"] == (True, -1)
    assert said[b'"'] == (True, 0)
    assert said[b'sexual":"'] == (True, 6)
    assert said[b"\\"] == said[b"\n"] == said[b"\x00"] == said[b"\x7f"] == (False, -1)
    assert not legal[model.control_tokens].any()


def test_the_fingerprint_looks_at_the_whole_file(llama_cpp: None, tmp_path: Path) -> None:
    path = write_llama_stand_in(tmp_path / "model.gguf")
    data = path.read_bytes()
    found = {LlamaModel(path).fingerprint}
    for place in (len(data) - 1, len(data) - 40_000, len(data) // 2):
        other = bytearray(data)
        other[place] ^= 1
        path.write_bytes(other)
        found.add(LlamaModel(path).fingerprint)
    assert len(found) == 4


def test_threads_can_be_set_and_change_nothing(model: LlamaModel) -> None:
    tokens = form_tokens(model, SAFETY_FORMS)
    one, two = (fill_in(model, tokens, quoted("a scar"), n_ctx=4096, folder=None, threads=n) for n in (1, 2))
    for answer, other in zip(one, two, strict=True):
        np.testing.assert_allclose(answer.probabilities, other.probabilities, atol=1e-4)
