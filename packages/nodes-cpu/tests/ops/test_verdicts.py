from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_cpu_nodes.ops import verdicts
from comfy_cpu_nodes.ops.verdicts import DOMAINS, STATES, Classification, Facts, Malformed, NudityVerdict

SAFE = dict.fromkeys(DOMAINS, "SAFE")


def classification(**changes: Any) -> str:
    return json.dumps({"classification": SAFE, "reasons": ["fine"], "confidence": 0.9, **changes})


def states(**changes: Any) -> str:
    return classification(classification={**SAFE, **changes})


def without(domain: str, **extra: Any) -> str:
    return classification(classification={key: value for key, value in {**SAFE, **extra}.items() if key != domain})


def nudity(**changes: Any) -> str:
    whole = {"is_nsfw": False, "max_score": 0.0, "threshold": 0.6, "detections": [], "all_detections_count": 0}
    return json.dumps({**whole, **changes})


def facts(**changes: Any) -> str:
    return json.dumps({"primary_subject": "a", "secondary_subjects": [], "nsfw": False, "violence": False, **changes})


def test_a_classification_is_read_and_written_as_it_was() -> None:
    verdict = verdicts.read_classification(states(hate="UNSAFE", drugs="BORDERLINE"))
    assert verdict.states == {**SAFE, "hate": "UNSAFE", "drugs": "BORDERLINE"}
    assert (verdict.reasons, verdict.confidence) == (("fine",), 0.9)
    assert verdicts.read_classification(verdict.to_json()) == verdict


def test_a_classification_is_written_as_the_reference_writes_it() -> None:
    text = Classification(SAFE, ("neutral product photo",), 0.95).to_json()
    assert text == (
        '{\n  "classification": {\n    "sexual": "SAFE",\n    "violence": "SAFE",\n    "hate": "SAFE",\n'
        '    "disturbing": "SAFE",\n    "drugs": "SAFE"\n  },\n  "reasons": [\n    "neutral product photo"\n  ],\n'
        '  "confidence": 0.95\n}'
    )


NO_CLASSIFICATION: dict[str, tuple[Any, str]] = {
    "nothing": (None, "it is no text, but nothing"),
    "bytes": (classification().encode(), "it is no text"),
    "a dictionary": (json.loads(classification()), "it is no text"),
    "empty": ("", "it is empty"),
    "blank": (" \n ", "it is empty"),
    "no JSON": ("SAFE", "it is no JSON"),
    "cut off": (classification()[:-2], "it is no JSON"),
    "two objects": (classification() * 2, "it is no JSON"),
    "in a code fence": (f"```json\n{classification()}\n```", "it is no JSON"),
    "too deep": ("[" * 100_000, "it is no JSON"),
    "a list": (f"[{classification()}]", "no JSON object"),
    "the word true": ("true", "no JSON object"),
    "null": ("null", "it is nothing, no JSON object"),
    "an error beside a verdict": (classification(error="model not found"), "it reports an error: 'model not found'"),
    "an empty error": (classification(error=""), "it reports an error"),
    "an error that is null": (classification(error=None), "it reports an error"),
    "no classification": (json.dumps({"reasons": [], "confidence": 0.9}), "'classification' is missing"),
    "a classification that is a list": (classification(classification=["SAFE"] * 5), "'classification' is missing"),
    "an empty classification": (classification(classification={}), "'sexual' is missing"),
    "a missing domain": (without("drugs"), "'drugs' is missing"),
    "a missing domain and another in its place": (without("hate", weapons="SAFE"), "'hate' is missing"),
    "an unknown domain": (states(weapons="UNSAFE"), "'weapons' is unknown"),
    "a domain in capitals": (without("hate", Hate="SAFE"), "'hate' is missing"),
    "an unknown state": (states(hate="PROBABLY SAFE"), "'hate' is 'PROBABLY SAFE'"),
    "a state in lower case": (states(hate="safe"), "'hate' is 'safe'"),
    "a state with a space": (states(hate="SAFE "), "'hate' is 'SAFE '"),
    "a state that is null": (states(hate=None), "'hate' is None"),
    "a state that is true": (states(hate=True), "'hate' is True"),
    "a state that is a list": (states(hate=["SAFE"]), "'hate' is \\['SAFE'\\]"),
    "a state that is 0": (states(hate=0), "'hate' is 0"),
    "a domain twice": (classification().replace('"hate"', '"drugs"'), "'drugs' is there twice"),
    "a classification twice": (
        f'{{"classification": {json.dumps({**SAFE, "hate": "UNSAFE"})}, {classification()[1:]}',
        "'classification' is there twice",
    ),
    "no confidence": (json.dumps({"classification": SAFE, "reasons": []}), "'confidence' is missing"),
    "a confidence that is NaN": (classification(confidence=float("nan")), "NaN is no number"),
    "a confidence that is infinite": (classification(confidence=float("inf")), "Infinity is no number"),
    "a confidence that overflows": (classification().replace("0.9", "1e999"), "'confidence' is missing or no number"),
    "a confidence of 10^400": (classification(confidence=10**400), "'confidence' is missing or no number"),
    "a confidence above 1": (classification(confidence=95), "'confidence' is missing or no number"),
    "a negative confidence": (classification(confidence=-0.1), "'confidence' is missing or no number"),
    "a confidence in words": (classification(confidence="0.9"), "'confidence' is missing or no number"),
    "a confidence that is true": (classification(confidence=True), "'confidence' is missing or no number"),
    "reasons that are text": (classification(reasons="fine"), "'reasons' is no list"),
    "reasons that are numbers": (classification(reasons=[1]), "'reasons' is no list"),
}


@pytest.mark.parametrize(("text", "message"), NO_CLASSIFICATION.values(), ids=NO_CLASSIFICATION)
def test_what_is_no_classification(text: Any, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        verdicts.read_classification(text)


def test_nudity_is_read() -> None:
    assert verdicts.read_nudity(nudity()) == NudityVerdict(False, 0.0)
    found = nudity(is_nsfw=True, max_score=0.75, detections=[{"label": "ANUS_EXPOSED"}])
    assert verdicts.read_nudity(found) == NudityVerdict(True, 0.75)
    assert verdicts.read_nudity('{"is_nsfw": false, "max_score": 0}') == NudityVerdict(False, 0.0)
    assert verdicts.read_nudity(nudity(threshold=0)) == NudityVerdict(False, 0.0), "nothing reaches a threshold of 0"


NO_NUDITY: dict[str, tuple[str, str]] = {
    "the reference's own failure": (
        json.dumps({"error": "nudenet not installed", "is_nsfw": False, "detections": []}),
        "it reports an error",
    ),
    "no is_nsfw": (json.dumps({"max_score": 0.0}), "'is_nsfw' is missing"),
    "is_nsfw in words": (nudity(is_nsfw="false"), "'is_nsfw' is missing or neither"),
    "is_nsfw that is 0": (nudity(is_nsfw=0), "'is_nsfw' is missing or neither"),
    "is_nsfw that is null": (nudity(is_nsfw=None), "'is_nsfw' is missing or neither"),
    "no score": (json.dumps({"is_nsfw": False}), "'max_score' is missing"),
    "a score that is NaN": (nudity(max_score=float("nan")), "NaN is no number"),
    "a score in words": (nudity(max_score="0"), "'max_score' is missing or no number"),
    "findings that it does not count": (nudity(detections=[{"label": "ANUS_EXPOSED"}]), "'detections' is not empty"),
    "detections that are no list": (nudity(detections=None), "'detections' is no list"),
    "a score that it does not count": (nudity(max_score=0.9), "'max_score' reaches 'threshold'"),
    "a threshold that is no number": (nudity(max_score=0.1, threshold="high"), "'threshold' is missing or no number"),
}


@pytest.mark.parametrize(("text", "message"), NO_NUDITY.values(), ids=NO_NUDITY)
def test_what_is_no_verdict_on_nudity(text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        verdicts.read_nudity(text)


def test_facts_are_read_and_written_as_they_were() -> None:
    found = Facts("ein blauer Krug", ("Holztisch", "Fenster"), False, True)
    assert found.to_json() == (
        '{"primary_subject":"ein blauer Krug","secondary_subjects":["Holztisch","Fenster"],"nsfw":false,"violence":true}'
    )
    assert verdicts.read_facts(found.to_json()) == found
    assert found.secondary_text == "Holztisch, Fenster"


NO_FACTS: dict[str, tuple[str, str]] = {
    "the reference's own failure": (facts(error="GGUF not found"), "it reports an error"),
    "no flag": (json.dumps({"primary_subject": "a", "secondary_subjects": [], "nsfw": False}), "'violence' is missing"),
    "a flag in words": (facts(nsfw="false"), "'nsfw' is missing or neither"),
    "a flag that is null": (facts(violence=None), "'violence' is missing or neither"),
    "a flag that is 0": (facts(violence=0), "'violence' is missing or neither"),
    "a flag twice": (facts().replace('"violence"', '"nsfw"'), "'nsfw' is there twice"),
    "no subject": (json.dumps({"secondary_subjects": [], "nsfw": False, "violence": False}), "'primary_subject'"),
    "a subject that is a number": (facts(primary_subject=1), "'primary_subject'"),
    "subjects that are text": (facts(secondary_subjects="a, b"), "'secondary_subjects'"),
}


@pytest.mark.parametrize(("text", "message"), NO_FACTS.values(), ids=NO_FACTS)
def test_what_are_no_facts(text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        verdicts.read_facts(text)


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(STATES),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from([*DOMAINS, "confidence"]), inner),
    max_leaves=12,
)


@given(_json, st.sampled_from(["", "classification", "reasons", "confidence", *DOMAINS]))
def test_nothing_but_a_whole_classification_is_read(value: Any, place: str) -> None:
    whole = json.loads(classification())
    if place in DOMAINS:
        whole["classification"][place] = value
    elif place:
        whole[place] = value
    else:
        whole = value
    try:
        verdict = verdicts.read_classification(json.dumps(whole))
    except Malformed:
        return
    assert set(verdict.states) == set(DOMAINS)
    assert set(verdict.states.values()) <= set(STATES)
    assert verdict.states == whole["classification"]


@pytest.mark.parametrize(
    ("block_unsafe", "block_borderline", "blocked"),
    [
        (True, False, {"UNSAFE"}),
        (True, True, {"UNSAFE", "BORDERLINE"}),
        (False, True, {"UNSAFE", "BORDERLINE"}),
        (False, False, set()),
    ],
)
def test_which_states_are_blocked(block_unsafe: bool, block_borderline: bool, blocked: set[str]) -> None:
    for state in STATES:
        verdict = verdicts.read_classification(states(violence=state))
        found = verdicts.multi_domain_violations(
            verdict, DOMAINS, block_unsafe=block_unsafe, block_borderline=block_borderline
        )
        assert found == ([f"Violent content ({state})"] if state in blocked else [])
        found = verdicts.hybrid_violations(
            NudityVerdict(False, 0.0),
            verdict,
            block_unsafe=block_unsafe,
            block_borderline=block_borderline,
            nudenet_overrides_llama=True,
        )
        assert found == ([f"Violence content ({state})"] if state in blocked else [])


@pytest.mark.parametrize(
    ("is_nsfw", "overrides", "found"),
    [
        (False, True, []),
        (False, False, ["Sexual content (Llama: UNSAFE)"]),
        (True, True, ["Sexual content detected by NudeNet (score: 0.750)"]),
        (True, False, ["Sexual content detected by NudeNet (score: 0.750)"]),
    ],
)
def test_whom_a_hybrid_gate_believes(is_nsfw: bool, overrides: bool, found: list[str]) -> None:
    violations = verdicts.hybrid_violations(
        NudityVerdict(is_nsfw, 0.75),
        verdicts.read_classification(states(sexual="UNSAFE")),
        block_unsafe=True,
        block_borderline=False,
        nudenet_overrides_llama=overrides,
    )
    assert violations == found
