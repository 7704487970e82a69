"""The tiny model, with the real libraries."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import InputError, Interrupted, ModelCorrupt, ModelError, ModelMissing
from comfy_cpu_nodes.ops.florence import Normalisation, encode
from comfy_cpu_nodes.runtimes import loaded_models, release_models
from comfy_cpu_nodes.runtimes.florence import (
    SPECIAL_TOKENS,
    Florence,
    Sampling,
    best_precision,
    lease_florence,
    library,
    open_florence,
)

StandIn = Callable[..., Path]

GREEDY = Sampling(max_new_tokens=24, num_beams=3, do_sample=False, seed=1)
CHANCE = Sampling(max_new_tokens=24, num_beams=3, do_sample=True, seed=1)
QUESTION = "What does the image describe?"


def nothing() -> None:
    pass


def load(path: Path, **settings: Any) -> Florence:
    return open_florence(path, name="LLM/tiny", fetch="fetch it", **{"precision": "f32", **settings})


def ask(florence: Florence, picture: np.ndarray, sampling: Sampling = GREEDY, question: str = QUESTION) -> str:
    with lease_florence(florence) as model:
        return model.answer(picture, question, sampling, nothing)


def test_it_says_what_it_was_taught(stand_in: StandIn, picture: np.ndarray) -> None:
    answer = ask(load(stand_in(says="a cat<loc_1><loc_999> on the mat.")), picture, Sampling(60, 3, True, 7))
    assert answer == "</s><s>a cat<loc_1><loc_999> on the mat.</s>"


def test_the_old_layout_gives_the_same_answers(stand_in: StandIn, picture: np.ndarray) -> None:
    for sampling in (GREEDY, CHANCE):
        native, old = (ask(load(stand_in(layout=layout)), picture, sampling) for layout in ("native", "old"))
        assert native == old
        assert len(native) > 40


def test_answers_depend_on_picture_question_and_seed(stand_in: StandIn, picture: np.ndarray) -> None:
    florence = load(stand_in())
    usual = ask(florence, picture)
    assert ask(florence, 255 - picture) != usual
    assert ask(florence, picture, question="What is the text in the image?") != usual
    by_chance = {seed: ask(florence, picture, Sampling(24, 3, True, seed)) for seed in (1, 2, 3)}
    assert len(set(by_chance.values())) == 3
    assert ask(florence, picture, Sampling(24, 3, True, 2)) == by_chance[2]


def test_plain_transformers_says_the_same(libraries: Any, stand_in: StandIn, picture: np.ndarray) -> None:
    """Without our cache, our attention, our loading: beam search as the library does it."""
    torch, transformers = libraries.torch, libraries.transformers
    path = stand_in()
    model = transformers.Florence2ForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = libraries.tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    ids = [0, *tokenizer.encode(QUESTION, add_special_tokens=False).ids, 2]
    with torch.inference_mode():
        found = model.get_image_features(pixel_values=torch.from_numpy(encode(picture, Normalisation(side=64))))
        looked = getattr(found, "pooler_output", found)
        embeddings = torch.cat([looked, model.get_input_embeddings()(torch.tensor([ids]))], dim=1)
        encoded = model.model.language_model.encoder(inputs_embeds=embeddings)
        expected = model.generate(
            encoder_outputs=encoded,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
            max_new_tokens=24,
            num_beams=3,
            do_sample=False,
            use_cache=False,
            no_repeat_ngram_size=3,
            early_stopping=True,
            forced_bos_token_id=0,
            forced_eos_token_id=2,
        )
    answer = ask(load(path), picture)
    assert answer == tokenizer.decode(expected[0].tolist(), skip_special_tokens=False)


def test_eager_attention_gives_the_same(stand_in: StandIn, picture: np.ndarray) -> None:
    assert ask(load(stand_in(), attention="eager"), picture) == ask(load(stand_in()), picture)


def test_one_beam(stand_in: StandIn, picture: np.ndarray) -> None:
    florence = load(stand_in(says="one beam will do"))
    assert ask(florence, picture, Sampling(60, 1, False, 1)) == "</s><s>one beam will do</s>"


def test_bf16(libraries: Any, stand_in: StandIn, picture: np.ndarray) -> None:
    florence = load(stand_in(says="rounded numbers will do"), precision="bf16")
    assert ask(florence, picture, Sampling(60, 3, True, 1)) == "</s><s>rounded numbers will do</s>"
    with lease_florence(florence) as model:
        types = {parameter.dtype for parameter in model._model.parameters()}
        assert types == {libraries.torch.bfloat16}


def test_a_picture_is_looked_at_once(stand_in: StandIn, picture: np.ndarray) -> None:
    florence = load(stand_in())
    looks = []
    with lease_florence(florence) as model:
        model._model.model.vision_tower.register_forward_hook(lambda *_: looks.append(1))
        for sampling in (GREEDY, CHANCE, Sampling(8, 5, False, 1)):
            model.answer(picture, QUESTION, sampling, nothing)
            model.answer(picture, "something else", sampling, nothing)
        assert len(looks) == 1
        model.answer(picture.transpose(1, 0, 2), QUESTION, GREEDY, nothing)
        assert len(looks) == 2, "the same bytes in another shape are another picture"
        model.trim()
        model.answer(picture, QUESTION, GREEDY, nothing)
        assert len(looks) == 3


def test_only_a_few_pictures_are_remembered(stand_in: StandIn) -> None:
    with lease_florence(load(stand_in())) as model:
        before = model.memory_bytes()
        for level in range(10):
            model.answer(np.full((8, 8, 3), level, np.uint8), "x", Sampling(2, 1, False, 1), nothing)
        assert len(model._seen) == 8
        assert model.memory_bytes() == before + 8 * 5 * 64 * 4


def test_the_longest_answer(stand_in: StandIn, picture: np.ndarray) -> None:
    with lease_florence(load(stand_in())) as model:
        assert model.longest_answer == 256
        tokens: list[int] = []
        model.answer(picture, QUESTION, Sampling(256, 2, True, 5), lambda: tokens.append(1))
        assert len(tokens) <= 256


def test_a_question_that_is_too_long(stand_in: StandIn, picture: np.ndarray) -> None:
    florence = load(stand_in())
    ask(florence, picture, question="x" * 249)
    with pytest.raises(ModelError, match="a question of 252 tokens is too long for Florence-2, which takes 251"):
        ask(florence, picture, question="x" * 250)


def test_torch_is_left_as_it_was(libraries: Any, stand_in: StandIn, picture: np.ndarray) -> None:
    torch = libraries.torch
    florence = load(stand_in())
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ask(florence, picture, CHANCE)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_two_at_once_do_not_share_their_chance(stand_in: StandIn, picture: np.ndarray) -> None:
    florence = load(stand_in())
    alone = {seed: ask(florence, picture, Sampling(24, 3, True, seed)) for seed in (1, 2)}
    answers: dict[int, list[str]] = {1: [], 2: []}

    def work(seed: int) -> None:
        answers[seed] = [ask(florence, picture, Sampling(24, 3, True, seed)) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {seed: [answer] * 3 for seed, answer in alone.items()}


def test_an_interrupt_while_it_looks(stand_in: StandIn, picture: np.ndarray, run: RunContext) -> None:
    florence = load(stand_in())
    asked = []

    def stop() -> None:
        asked.append(1)
        if len(asked) > 5:
            raise Interrupted("enough")

    run.check = stop
    with pytest.raises(Interrupted, match="enough"), lease_florence(florence) as model:
        model.answer(picture, QUESTION, GREEDY, lambda: pytest.fail("there should be no token yet"))
    run.check = nothing
    assert ask(florence, picture) == ask(load(stand_in()), picture), "and it works again afterwards"


def test_it_asks_often_whether_to_stop(stand_in: StandIn, picture: np.ndarray, run: RunContext) -> None:
    florence = load(stand_in())
    asked = []
    run.check = lambda: asked.append(1)
    with lease_florence(florence) as model:
        model._look(picture)
    blocks = 5 * 2
    assert len(asked) >= 4 + 4 * blocks, (
        "each convolution between stages, twice in each attention and feed-forward part"
    )


def test_an_interrupt_between_two_tokens(stand_in: StandIn, picture: np.ndarray) -> None:
    florence = load(stand_in())
    tokens = []

    def on_token() -> None:
        tokens.append(1)
        if len(tokens) == 3:
            raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"), lease_florence(florence) as model:
        model.answer(picture, QUESTION, GREEDY, on_token)
    assert len(tokens) == 3


def test_waiting_for_another_one_can_be_interrupted(stand_in: StandIn, picture: np.ndarray, run: RunContext) -> None:
    florence = load(stand_in())

    def stop() -> None:
        raise Interrupted("enough")

    run.check = stop
    with library._torch:
        started = time.monotonic()
        with pytest.raises(Interrupted, match="enough"), lease_florence(florence) as model:
            model.answer(picture, QUESTION, GREEDY, nothing)
    assert time.monotonic() - started < 1


def test_it_lives_in_the_cache(stand_in: StandIn, picture: np.ndarray, run: RunContext) -> None:
    florence = load(stand_in())
    assert load(stand_in()) == florence
    (loaded,) = loaded_models()
    assert loaded.key == florence
    size = (stand_in() / "model.safetensors").stat().st_size
    assert 0.9 * size < loaded.memory_bytes < 1.1 * size
    answer = ask(florence, picture)
    assert release_models(aggressive=True) == [florence]
    assert loaded_models() == []
    assert ask(florence, picture) == answer
    (use,) = run.model_uses
    assert (use.name, use.precision, use.stand_in) == ("LLM/tiny", "f32", True)
    assert use.runtime.startswith("transformers ")
    assert use.load_seconds > 0
    (warning,) = run.warnings
    assert "STAND-IN" in warning


def test_a_model_that_was_replaced_is_another_one(stand_in: StandIn, tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "tiny"
    shutil.copytree(stand_in(), path)
    before = load(path)
    first = ask(before, picture)
    shutil.copytree(stand_in(seed=3), path, dirs_exist_ok=True)
    after = load(path)
    assert after != before
    assert ask(after, picture) != first


def test_the_tokens_of_the_old_layout_are_added_in_order(libraries: Any, stand_in: StandIn) -> None:
    native, old = (
        libraries.tokenizers.Tokenizer.from_file(str(stand_in(layout=layout) / "tokenizer.json"))
        for layout in ("native", "old")
    )
    assert old.token_to_id("<loc_0>") is None
    assert [native.token_to_id(token) for token in SPECIAL_TOKENS] == list(range(261, 261 + 1024))


# What is wrong with a directory is said when it is opened.


@pytest.fixture
def broken(stand_in: StandIn, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stand_in(), tmp_path / "broken"))


def change_weights(libraries: Any, path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = path / "model.safetensors"
    weights = libraries.safetensors.torch.load_file(str(file))
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    change(weights)
    libraries.safetensors.torch.save_file(weights, str(file))


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_truncated_weights(broken: Path, kept: int) -> None:
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelCorrupt, match=r"model\.safetensors cannot be read"):
        load(broken)


def test_a_weight_that_is_missing(libraries: Any, broken: Path) -> None:
    change_weights(libraries, broken, lambda weights: weights.pop("model.vision_tower.convs.1.conv.bias"))
    with pytest.raises(ModelCorrupt, match=r"lacks the weight model\.vision_tower\.convs\.1\.conv\.bias"):
        load(broken)


def test_weights_without_embeddings(libraries: Any, broken: Path) -> None:
    change_weights(libraries, broken, lambda weights: weights.pop("model.language_model.shared.weight"))
    with pytest.raises(ModelCorrupt, match=r"lacks the weight lm_head\.weight and 3 more"):
        load(broken)


def test_a_weight_of_another_model(libraries: Any, broken: Path) -> None:
    change_weights(libraries, broken, lambda weights: weights.update(stranger=libraries.torch.zeros(1)))
    with pytest.raises(ModelCorrupt, match="'stranger', which Florence-2 does not have"):
        load(broken)


def test_a_weight_of_another_shape(libraries: Any, broken: Path) -> None:
    name = "model.vision_tower.convs.1.conv.bias"
    change_weights(libraries, broken, lambda weights: weights.update({name: libraries.torch.zeros(9)}))
    with pytest.raises(ModelCorrupt, match=r"has the shape \(9,\), but config\.json says \(8,\)"):
        load(broken)


def test_a_bias_that_cannot_be_computed_with(libraries: Any, stand_in: StandIn, tmp_path: Path) -> None:
    path = Path(shutil.copytree(stand_in(layout="old"), tmp_path / "biased"))
    change_weights(libraries, path, lambda weights: weights["language_model.final_logits_bias"].fill_(1))
    with pytest.raises(ModelCorrupt, match="final_logits_bias is not zero"):
        load(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 7}'])
def test_a_tokenizer_that_cannot_be_read(broken: Path, content: str) -> None:
    (broken / "tokenizer.json").write_text(content)
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json cannot be read"):
        load(broken)


def test_more_tokens_than_the_model_knows(broken: Path) -> None:
    config = (broken / "config.json").read_text()
    (broken / "config.json").write_text(config.replace('"vocab_size": 1285', '"vocab_size": 1200'))
    with pytest.raises(ModelCorrupt, match="has 1285 tokens, but the model knows only 1200"):
        load(broken)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"d_model": 64', '"d_model": "x"'), ('"encoder_attention_heads": 4', '"encoder_attention_heads": 5')],
)
def test_a_configuration_of_no_model(broken: Path, old: str, new: str) -> None:
    config = (broken / "config.json").read_text()
    assert old in config
    (broken / "config.json").write_text(config.replace(old, new))
    with pytest.raises(ModelCorrupt, match="describes no Florence-2"):
        load(broken)


def test_code_in_the_directory_is_not_run(stand_in: StandIn, tmp_path: Path, picture: np.ndarray) -> None:
    path = Path(shutil.copytree(stand_in(layout="old"), tmp_path / "code"))
    for name in ("configuration_florence2.py", "modeling_florence2.py", "processing_florence2.py"):
        (path / name).write_text("raise SystemExit('this should not run')")
    assert ask(load(path), picture) == ask(load(stand_in()), picture)


def test_not_enough_memory(stand_in: StandIn, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    florence = load(stand_in())

    def fail(*_arguments: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")

    monkeypatch.setattr("comfy_cpu_nodes.runtimes.florence.model.write_answer", fail)
    with pytest.raises(ModelError, match="not enough memory") as caught:
        ask(florence, picture)
    assert caught.value.remedy is not None
    assert "memory" in caught.value.remedy


# The libraries.


@pytest.mark.parametrize("module", ["torch", "transformers", "tokenizers", "safetensors"])
def test_a_missing_library_is_an_error_that_says_how_to_get_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None if name == module else object())
    library.load_libraries.cache_clear()
    with pytest.raises(ModelError, match=f"needs {module}, which is not installed") as caught:
        library.load_libraries()
    assert caught.value.remedy is not None
    assert "pip install 'comfy-cpu-nodes[florence2]'" in caught.value.remedy
    assert not library.has_libraries()


def test_nothing_heavy_is_imported_before_a_model_is_loaded() -> None:
    code = (
        "import sys, comfy_cpu_nodes.runtimes.florence, comfy_cpu_nodes.testing_florence2, "
        "comfy_cpu_nodes.nodes.florence2, comfy_cpu_nodes.nodes.florence2_loaders\n"
        "comfy_cpu_nodes.nodes.florence2_loaders.Florence2ModelLoader.INPUT_TYPES()\n"
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("forced", "hardware", "best"), [("", True, "bf16"), ("auto", False, "f32"), ("f32", True, "f32")]
)
def test_the_best_precision(forced: str, hardware: bool, best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = frozenset({"avx512_bf16"} if hardware else {"avx2"})
    found = type("Found", (), {"has_bf16": bool(sets & {"avx512_bf16"})})
    monkeypatch.setattr("comfy_cpu_nodes.runtimes.florence.get_resources", lambda: found)
    assert best_precision({"COMFY_CPU_PRECISION": forced}) == best


def test_a_precision_that_is_none() -> None:
    with pytest.raises(InputError, match="COMFY_CPU_PRECISION is 'int8'"):
        best_precision({"COMFY_CPU_PRECISION": "int8"})


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="nowhere"):
        load(tmp_path / "nowhere")
