from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from comfy_cpu_core.context import RunContext
from comfy_cpu_core.errors import ContentBlocked, NodeError
from comfy_cpu_nodes.nodes import gates
from comfy_cpu_nodes.ops.verdicts import DOMAINS

IMAGE = np.zeros((1, 4, 4, 3), np.float32)
CLEAN = json.dumps({"is_nsfw": False, "max_score": 0.0, "threshold": 0.6, "detections": []})
NUDE = json.dumps({"is_nsfw": True, "max_score": 0.95, "threshold": 0.6, "detections": [{"label": "ANUS_EXPOSED"}]})


def rated(reasons: tuple[str, ...] = (), **states: str) -> str:
    classification = {**dict.fromkeys(DOMAINS, "SAFE"), **states}
    return json.dumps({"classification": classification, "reasons": list(reasons), "confidence": 0.9})


def extracted(**changes: Any) -> str:
    facts = {"primary_subject": "a jug", "secondary_subjects": ["a table", "a wall"], "nsfw": False, "violence": False}
    return json.dumps({**facts, **changes})


def test_the_hybrid_gate_passes_the_very_same_picture() -> None:
    image, status = gates.HybridSafetyGate().check_hybrid(IMAGE, CLEAN, rated(hate="BORDERLINE"))
    assert image is IMAGE
    assert status == "SAFE: Passed NudeNet + Multi-Domain checks"


@pytest.mark.parametrize(
    ("nude", "verdict", "options", "message"),
    [
        (NUDE, rated(), {}, "Sexual content detected by NudeNet (score: 0.950)"),
        (NUDE, rated(), {"block_unsafe": False}, "Sexual content detected by NudeNet (score: 0.950)"),
        (CLEAN, rated(violence="UNSAFE"), {}, "Violence content (UNSAFE)"),
        (CLEAN, rated(hate="UNSAFE", drugs="UNSAFE"), {}, "Hate content (UNSAFE) | Drugs content (UNSAFE)"),
        (CLEAN, rated(drugs="BORDERLINE"), {"block_borderline": True}, "Drugs content (BORDERLINE)"),
        (CLEAN, rated(sexual="UNSAFE"), {"nudenet_overrides_llama": False}, "Sexual content (Llama: UNSAFE)"),
        (
            NUDE,
            rated(disturbing="UNSAFE"),
            {},
            "Sexual content detected by NudeNet (score: 0.950) | Disturbing content (UNSAFE)",
        ),
    ],
)
def test_the_hybrid_gate_blocks(nude: str, verdict: str, options: dict[str, bool], message: str) -> None:
    with pytest.raises(ContentBlocked) as blocked:
        gates.HybridSafetyGate().check_hybrid(IMAGE, nude, verdict, **options)
    assert str(blocked.value) == f"Content blocked by hybrid safety gate: {message}"
    assert isinstance(blocked.value, ValueError), "front ends know a block by that"


def test_the_hybrid_gate_says_whose_word_it_overrides(run: RunContext) -> None:
    _, status = gates.HybridSafetyGate().check_hybrid(IMAGE, CLEAN, rated(sexual="UNSAFE"))
    assert status.startswith("SAFE")
    assert run.warnings == ["the classifier rated 'sexual' UNSAFE; NudeNet found nothing and overrides it"]


def test_the_multi_domain_gate_passes_the_very_same_picture() -> None:
    image, status = gates.MultiDomainSafetyGate().check_and_gate(IMAGE, rated(hate="BORDERLINE"))
    assert image is IMAGE
    assert status == "SAFE: All domains passed safety check"


@pytest.mark.parametrize(
    ("verdict", "options", "message"),
    [
        (rated(sexual="UNSAFE"), {}, "Sexual content (UNSAFE)"),
        (rated(violence="UNSAFE"), {}, "Violent content (UNSAFE)"),
        (rated(hate="UNSAFE"), {}, "Hate content (UNSAFE)"),
        (rated(disturbing="UNSAFE"), {}, "Disturbing content (UNSAFE)"),
        (rated(drugs="UNSAFE"), {}, "Drug/crime content (UNSAFE)"),
        (
            rated(("blood", "a knife"), violence="UNSAFE", disturbing="UNSAFE"),
            {},
            "Violent content (UNSAFE) | Disturbing content (UNSAFE) | Reasons: blood, a knife",
        ),
        (rated(sexual="BORDERLINE"), {"block_borderline": True}, "Sexual content (BORDERLINE)"),
        (rated(sexual="UNSAFE"), {"block_borderline": True, "block_unsafe": False}, "Sexual content (UNSAFE)"),
        (rated(sexual="UNSAFE", hate="UNSAFE"), {"check_sexual": False}, "Hate content (UNSAFE)"),
    ],
)
def test_the_multi_domain_gate_blocks(verdict: str, options: dict[str, bool], message: str) -> None:
    with pytest.raises(ContentBlocked) as blocked:
        gates.MultiDomainSafetyGate().check_and_gate(IMAGE, verdict, **options)
    assert str(blocked.value) == f"Content blocked by multi-domain safety gate: {message}"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"block_unsafe": False}, "NOT BLOCKED: the gate's settings ignore UNSAFE in violence"),
        ({"check_violence": False}, "NOT BLOCKED: the gate's settings ignore UNSAFE in violence"),
        ({f"check_{domain}": False for domain in DOMAINS}, "NOT CHECKED: every domain is switched off"),
    ],
)
def test_a_gate_that_looks_away_does_not_say_safe(options: dict[str, bool], status: str) -> None:
    assert gates.MultiDomainSafetyGate().check_and_gate(IMAGE, rated(violence="UNSAFE"), **options)[1] == status


def test_the_parser_takes_the_facts_apart() -> None:
    found = gates.LLMJSONParser().parse_json(extracted(violence=True))
    assert found == ("a jug", "a table, a wall", False, True)


def test_the_json_gate_and_the_image_gate_pass() -> None:
    assert gates.LLMSafetyGateJSON().check_safety_json(extracted()) == ("a jug", "a table, a wall", False, False)
    image, *facts = gates.ImageSafetyGate().check_image_safety(IMAGE, extracted())
    assert image is IMAGE
    assert facts == ["a jug", False, False]


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        ({"nsfw": True}, {}, "NSFW content detected"),
        ({"violence": True}, {}, "Violent content detected"),
        ({"nsfw": True, "violence": True}, {}, "NSFW content detected and Violent content detected"),
        ({"nsfw": True, "violence": True}, {"stop_on_nsfw": False}, "Violent content detected"),
    ],
)
def test_the_flag_gates_block(flags: dict[str, bool], options: dict[str, bool], message: str) -> None:
    whole = {"nsfw": False, "violence": False, **flags}
    for attempt in (
        lambda: gates.LLMSafetyGate().check_safety("a jug", **whole, **options),
        lambda: gates.LLMSafetyGateJSON().check_safety_json(extracted(**flags), **options),
        lambda: gates.ImageSafetyGate().check_image_safety(IMAGE, extracted(**flags), **options),
    ):
        with pytest.raises(ContentBlocked) as blocked:
            attempt()
        assert str(blocked.value) == f"Content blocked by safety gate: {message}"


def test_flags_pass_where_nobody_stops_them() -> None:
    facts = extracted(nsfw=True, violence=True)
    passed = gates.LLMSafetyGateJSON().check_safety_json(facts, stop_on_nsfw=False, stop_on_violence=False)
    assert passed == ("a jug", "a table, a wall", True, True)
    assert gates.LLMSafetyGate().check_safety("a jug", stop_on_nsfw=False, stop_on_violence=False) == ("a jug",)


def test_a_flag_that_is_not_connected_is_reported(run: RunContext) -> None:
    assert gates.LLMSafetyGate().check_safety("a jug", nsfw=False) == ("a jug",)
    assert run.warnings == ["safety gate: violence is not connected, so it was not checked"]


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        ({}, {}, "nothing to look at: nsfw and violence not connected"),
        ({"violence": False}, {"stop_on_violence": False}, "nothing to look at: nsfw not connected"),
        ({"nsfw": "false"}, {}, "nsfw is 'false', neither true nor false"),
        ({"nsfw": 0, "violence": False}, {}, "nsfw is 0, neither true nor false"),
        ({"nsfw": False, "violence": np.nan}, {}, "violence is nan, neither true nor false"),
    ],
)
def test_a_flag_gate_without_flags_does_not_open(
    flags: dict[str, Any], options: dict[str, bool], message: str, run: RunContext
) -> None:
    with pytest.raises(NodeError, match=message) as error:
        gates.LLMSafetyGate().check_safety("a jug", **flags, **options)
    assert (error.value.node_id, error.value.class_type) == ("4", "Tested")


@pytest.mark.parametrize("switch", ["block_unsafe", "block_borderline", "nudenet_overrides_llama"])
@pytest.mark.parametrize("value", [None, "false", "true", 0, 1, [True]])
def test_a_switch_is_true_or_false(switch: str, value: Any) -> None:
    with pytest.raises(NodeError, match=f"{switch} is .*, neither true nor false"):
        gates.HybridSafetyGate().check_hybrid(IMAGE, CLEAN, rated(), **{switch: value})
