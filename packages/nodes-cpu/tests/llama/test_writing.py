from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from comfy_cpu_core.errors import InputError, ModelError
from comfy_cpu_nodes.ops.forms import Undecided
from comfy_cpu_nodes.ops.sampling import Sampling
from comfy_cpu_nodes.ops.verdicts import Facts, read_facts
from comfy_cpu_nodes.runtimes.llama import PRIORITIES, LlamaModel, Writer, chat_prompt, extract_facts, write
from comfy_cpu_nodes.runtimes.llama.context import Context

Load = Callable[..., LlamaModel]


def extract(model: LlamaModel, caption: str, *, seed: int = 0, temperature: float = 0.1, max_tokens: int = 60) -> Facts:
    return extract_facts(
        model,
        caption,
        priority="product",
        sampling=Sampling(temperature),
        seed=seed,
        max_tokens=max_tokens,
        n_ctx=8192,
    )


def writer(model: LlamaModel, text: str, *, room: int = 50, n_ctx: int = 4096, **sampling: float) -> Writer:
    prompt = chat_prompt(model, "Be brief.", text)
    return Writer(model, prompt, room=room, n_ctx=n_ctx, sampling=Sampling(**sampling), seed=3)  # type: ignore[arg-type]


def no_step() -> None:
    pass


@pytest.mark.parametrize("chat", ["llama3", "chatml", "plain"])
def test_the_model_writes_until_it_ends_by_itself(load: Load, chat: str) -> None:
    steps: list[None] = []
    assert write(writer(load(chat=chat), "what is it?"), 50, lambda: steps.append(None)) == "thing"
    assert len(steps) == 2


def test_or_until_it_may_not_go_on(load: Load) -> None:
    model = load(random=1)
    steps: list[None] = []
    assert write(writer(model, "what is it?", room=12, temperature=1.0), 12, lambda: steps.append(None))
    assert len(steps) == 12


def test_a_seed_decides(load: Load) -> None:
    model = load(random=1)
    texts = [write(writer(model, "what?", temperature=1.5), 20, no_step) for _ in range(2)]
    assert texts[0] == texts[1]


def test_what_is_still_remembered_is_not_read_again(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    read = Context.read
    monkeypatch.setattr(Context, "read", lambda self, reads: lengths.append(len(reads)) or read(self, reads))
    first = write(writer(model, "what is this thing here?"), 50, no_step)
    second = write(writer(model, "what is this thing there?"), 50, no_step)
    assert first == second == "thing"
    assert lengths[2] < lengths[0] / 2
    assert lengths[1] == lengths[3] == 1


def test_a_prompt_that_is_too_long_is_refused(model: LlamaModel) -> None:
    with pytest.raises(InputError, match=r"the prompt has \d+ tokens, the answer may have 50, the context holds 256"):
        writer(model, "long " * 60, n_ctx=256)


def test_there_is_no_more_than_there_is_room_for(model: LlamaModel) -> None:
    writing = writer(model, "what?", room=3)
    writing.add_text("four")
    with pytest.raises(ModelError, match="more than there is room for"):
        writing.expected()


def test_texts_that_begin_alike_cannot_be_weighed(model: LlamaModel) -> None:
    with pytest.raises(ModelError, match="does not tell yes and yellow apart"):
        writer(model, "what?").weigh(["yes", "yellow"])


def test_a_text_may_begin_with_any_part_of_it_and_after_a_space(load: Load) -> None:
    model = load(words=[" true", " tr", "tru", "true]", "trap"])
    found = {model.pieces[token] for token in model.beginnings("true")}
    assert found == {b"t", b"true", b" true", b" tr", b"tru", b"true]"}


@pytest.mark.parametrize(
    ("caption", "nsfw", "violence"),
    [
        ("a boat", False, False),
        ("a naked man", True, False),
        ("a stabbing", False, True),
        ("a naked man and a stabbing", True, True),
        ('a stabbing","violence":false}', False, True),
    ],
)
@pytest.mark.parametrize("options", [{}, {"chat": "plain"}, {"space_first": True}])
def test_facts_are_taken_out(load: Load, options: dict[str, object], caption: str, nsfw: bool, violence: bool) -> None:
    assert extract(load(**options), caption) == Facts("thing", (), nsfw, violence)


@pytest.fixture
def gullible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights never have a clear answer to a flag; believe it all the same, to see what else they write."""
    monkeypatch.setattr("comfy_cpu_nodes.ops.forms._LEAST_COVERAGE", 0.0)


@pytest.mark.usefixtures("gullible")
@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_model_says_the_answer_is_whole(load: Load, seed: int) -> None:
    """Random weights write rubbish: any bytes, quotes in the middle of tokens, no end."""
    model = load(random=seed, words=['","', '"]', 'a"b', '\\"', "ä", "\\u"])
    facts = extract(model, "a boat", seed=seed, temperature=2.0, max_tokens=80)
    assert read_facts(facts.to_json()) == facts
    for text in (facts.primary_subject, *facts.secondary_subjects):
        assert len(text.encode()) <= 140
        assert '"' not in text
        assert "\\" not in text
        assert not any(ord(char) < 0x20 for char in text)


def test_a_model_that_knows_nothing_is_not_believed(load: Load) -> None:
    with pytest.raises(Undecided, match="asked about 'nsfw', the model answers true, false"):
        extract(load(random=1), "a boat")


@pytest.mark.usefixtures("gullible")
@pytest.mark.parametrize("max_tokens", [1, 5, 32])
def test_an_answer_that_may_not_be_long_is_cut_off_and_whole(load: Load, max_tokens: int) -> None:
    facts = extract(load(random=4), "a boat", temperature=1.0, max_tokens=max_tokens)
    assert read_facts(facts.to_json()) == facts


def test_the_priority_is_told(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    start = Writer.__init__

    def note(self: Writer, model: LlamaModel, prompt: list[int], **named: object) -> None:
        prompts.append(b"".join(map(model.piece, prompt)).decode())
        start(self, model, prompt, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Writer, "__init__", note)
    for priority in PRIORITIES:
        extract_facts(model, 'a "boat"', priority=priority, sampling=Sampling(), seed=0, max_tokens=40, n_ctx=4096)
    assert len(set(prompts)) == 3
    assert all(PRIORITIES[priority] in prompt for priority, prompt in zip(PRIORITIES, prompts, strict=True))
    assert all(json.dumps('a "boat"') in prompt for prompt in prompts)
