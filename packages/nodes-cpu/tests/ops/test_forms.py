from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_nodes.ops import forms
from comfy_cpu_nodes.ops.forms import Answer
from comfy_cpu_nodes.ops.verdicts import DOMAINS, STATES, Classification, read_classification

SURE = Answer((0.97, 0.02, 0.01), 0.99)


def answers(**changed: Answer) -> list[Answer]:
    return [changed.get(domain, SURE) for domain in DOMAINS]


def test_the_most_likely_state_counts_and_the_least_certain_domain_is_the_confidence() -> None:
    verdict = forms.summarise(answers(violence=Answer((0.05, 0.15, 0.8), 0.9), drugs=Answer((0.4, 0.6, 0.0), 0.5)))
    assert verdict.states == {
        "sexual": "SAFE",
        "violence": "UNSAFE",
        "hate": "SAFE",
        "disturbing": "SAFE",
        "drugs": "BORDERLINE",
    }
    assert verdict.confidence == 0.6
    assert verdict.reasons == (
        "violence: UNSAFE with a probability of 80% (SAFE 5%, BORDERLINE 15%)",
        "drugs: BORDERLINE with a probability of 60% (SAFE 40%, UNSAFE 0%)",
    )


def test_safe_has_a_reason_too() -> None:
    verdict = forms.summarise(answers(hate=Answer((0.7, 0.2, 0.1), 1.0)))
    assert set(verdict.states.values()) == {"SAFE"}
    assert verdict.reasons == ("every domain is SAFE; the least certain is hate, with a probability of 70%",)
    assert verdict.confidence == 0.7


@pytest.mark.parametrize(
    ("probabilities", "state"),
    [
        ((0.5, 0.5, 0.0), "BORDERLINE"),
        ((0.4, 0.2, 0.4), "UNSAFE"),
        ((1 / 3,) * 3, "UNSAFE"),
        ((0.0, 0.5, 0.5), "UNSAFE"),
    ],
)
def test_of_equals_the_worse_counts(probabilities: tuple[float, ...], state: str) -> None:
    assert forms.summarise(answers(sexual=Answer(probabilities, 1.0))).states["sexual"] == state


@pytest.mark.parametrize("coverage", [0.0, 0.01, 0.099, math.nan])
def test_a_model_that_would_rather_say_something_else_is_not_believed(coverage: float) -> None:
    with pytest.raises(forms.Undecided, match="asked about 'hate'"):
        forms.summarise(answers(hate=Answer((1.0, 0.0, 0.0), coverage)))


def test_a_probability_that_is_none_is_not_believed() -> None:
    with pytest.raises(forms.Undecided, match="asked about 'hate'"):
        forms.summarise(answers(hate=Answer((math.nan, 0.0, 1.0), 1.0)))


@pytest.mark.parametrize(
    ("probabilities", "is_set"), [((0.9, 0.1), True), ((0.1, 0.9), False), ((0.5, 0.5), True), ((0.49, 0.51), False)]
)
def test_a_flag_is_what_is_more_likely_and_set_if_nobody_knows(probabilities: tuple[float, ...], is_set: bool) -> None:
    assert forms.decide("nsfw", Answer(probabilities, 0.9)) is is_set


@pytest.mark.parametrize(
    "answer", [Answer((0.0, 1.0), 0.05), Answer((0.0, 1.0), math.nan), Answer((math.nan,) * 2, 1.0)]
)
def test_a_flag_that_the_model_does_not_answer(answer: Answer) -> None:
    with pytest.raises(forms.Undecided, match="asked about 'nsfw', the model answers true, false"):
        forms.decide("nsfw", answer)


def test_options_are_weighed_by_all_tokens_that_they_may_begin_with() -> None:
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.25, 0.15], np.float32))
    answer = forms.weigh(logits, [[0, 1], np.array([3])])
    assert answer.probabilities == pytest.approx((0.3 / 0.55, 0.25 / 0.55))
    assert answer.coverage == pytest.approx(0.55)


def test_options_that_are_out_of_the_question_are_equal() -> None:
    answer = forms.weigh(np.array([0, -5000, -9000], np.float32), [[1], [2]])
    assert answer == Answer((0.5, 0.5), 0.0)


_answer = st.tuples(*[st.floats(0.001, 1)] * 3).map(lambda p: Answer(tuple(x / sum(p) for x in p), 0.5))


@given(st.lists(_answer, min_size=5, max_size=5))
def test_every_verdict_can_be_read(given_answers: list[Answer]) -> None:
    verdict = forms.summarise(given_answers)
    assert read_classification(verdict.to_json()) == verdict
    for domain, answer in zip(DOMAINS, given_answers, strict=True):
        assert answer.probabilities[STATES.index(verdict.states[domain])] == max(answer.probabilities)


def test_of_several_captions_the_worst_counts() -> None:
    def rated(state: str, confidence: float, *reasons: str) -> Classification:
        return Classification({**dict.fromkeys(DOMAINS, "SAFE"), "hate": state}, reasons, confidence)  # type: ignore[dict-item]

    worst = forms.worst([rated("SAFE", 0.9, "a"), rated("UNSAFE", 0.8, "b"), rated("BORDERLINE", 0.7, "c")])
    assert worst.states["hate"] == "UNSAFE"
    assert worst.confidence == 0.7
    assert worst.reasons == ("caption 1: a", "caption 2: b", "caption 3: c")
    assert forms.worst([worst]) is worst


@given(st.text())
def test_a_quoted_text_has_one_line_and_ends_where_it_ends(text: str) -> None:
    quoted = forms.quoted(text)
    assert json.loads(quoted) == text
    assert "\n" not in quoted
    assert quoted[0] == quoted[-1] == '"'
    assert '"' not in quoted[1:-1].replace("\\\\", "").replace('\\"', "")


@pytest.mark.parametrize("form", forms.SAFETY_FORMS, ids=lambda form: form.name)
def test_the_forms_ask_about_every_domain_with_every_state(form: forms.Form) -> None:
    assert [question.name for question in form.questions] == list(DOMAINS)
    for question in form.questions:
        assert question.name in question.stem
        assert question.options == STATES
        assert f"\n{question.name}: " in form.system, "the model is told what the domain is"
    stem, end = form.questions[0].stem.replace("sexual", "DOMAIN"), form.questions[0].end
    assert form.system.endswith(f"{stem}RATING{end}"), "the model is told what its answer looks like"
