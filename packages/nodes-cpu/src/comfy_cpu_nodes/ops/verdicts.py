"""What safety nodes say of a picture, as text (JSON), and what must follow from it. Pure.

Everything that is not exactly a verdict is refused: a gate that cannot read what it was given must not open. Each
``read_*`` function takes text that may come from any node, ours or not, and either gives a whole verdict or raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

__all__ = [
    "DOMAINS",
    "STATES",
    "Classification",
    "Facts",
    "Malformed",
    "NudityVerdict",
    "State",
    "flag_violations",
    "hybrid_violations",
    "multi_domain_violations",
    "read_classification",
    "read_facts",
    "read_nudity",
    "worse_or_equal",
]

State = Literal["SAFE", "BORDERLINE", "UNSAFE"]

#: What a caption is classified by, in the order of the JSON.
DOMAINS = ("sexual", "violence", "hate", "disturbing", "drugs")

#: The answers, from harmless to harmful.
STATES: tuple[State, ...] = ("SAFE", "BORDERLINE", "UNSAFE")

# The words for a domain in the messages of the two gates; they differ, and front ends may look for them.
_MULTI_DOMAIN_WORDS = {
    "sexual": "Sexual",
    "violence": "Violent",
    "hate": "Hate",
    "disturbing": "Disturbing",
    "drugs": "Drug/crime",
}
_HYBRID_WORDS = {"violence": "Violence", "hate": "Hate", "disturbing": "Disturbing", "drugs": "Drugs"}


class Malformed(ValueError):
    """What should be a verdict is none; the message says why, in a few words."""


@dataclass(frozen=True)
class Classification:
    """A verdict by domain.

    Attributes:
        states: domain → state, for exactly the `DOMAINS`.
        reasons: in words.
        confidence: 0..1.
    """

    states: Mapping[str, State]
    reasons: tuple[str, ...]
    confidence: float

    def to_json(self) -> str:
        """The text that the safety nodes exchange, indented by two."""
        states = {domain: self.states[domain] for domain in DOMAINS}
        verdict = {"classification": states, "reasons": list(self.reasons), "confidence": self.confidence}
        return json.dumps(verdict, indent=2, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class NudityVerdict:
    """NudeNet's verdict: whether there is too much, and the highest score (0..1) of what is too much."""

    is_nsfw: bool
    max_score: float


@dataclass(frozen=True)
class Facts:
    """What the JSON extractor found in a caption."""

    primary_subject: str
    secondary_subjects: tuple[str, ...]
    nsfw: bool
    violence: bool

    @property
    def secondary_text(self) -> str:
        """The secondary subjects, joined by commas."""
        return ", ".join(self.secondary_subjects)

    def to_json(self) -> str:
        """The text that the nodes exchange, compact."""
        facts = {
            "primary_subject": self.primary_subject,
            "secondary_subjects": list(self.secondary_subjects),
            "nsfw": self.nsfw,
            "violence": self.violence,
        }
        return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))


def read_classification(text: Any) -> Classification:
    """Read what a multi-domain classifier wrote.

    Raises:
        Malformed: it is not ``{"classification": {domain: state}, "reasons": [str], "confidence": 0..1}`` with exactly
            the known domains and states, or it reports an error.
    """
    verdict = _read_object(text)
    states = verdict.get("classification")
    if not isinstance(states, dict):
        raise Malformed("'classification' is missing or no object")
    for domain in DOMAINS:
        if domain not in states:
            raise Malformed(f"the domain {domain!r} is missing")
        if states[domain] not in STATES:
            raise Malformed(f"{domain!r} is {_shown(states[domain])}, none of {', '.join(STATES)}")
    if unknown := [domain for domain in states if domain not in DOMAINS]:
        raise Malformed(f"the domain {_shown(unknown[0])} is unknown")
    reasons = verdict.get("reasons", [])
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise Malformed("'reasons' is no list of strings")
    confidence = _fraction(verdict, "confidence")
    return Classification(cast("Mapping[str, State]", states), tuple(reasons), confidence)


def read_nudity(text: Any) -> NudityVerdict:
    """Read what the NudeNet checker wrote.

    Raises:
        Malformed: ``is_nsfw`` or ``max_score`` is missing or of another type, the parts contradict each other, or it
            reports an error.
    """
    verdict = _read_object(text)
    is_nsfw = _boolean(verdict, "is_nsfw")
    max_score = _fraction(verdict, "max_score")
    detections = verdict.get("detections", [])
    if not isinstance(detections, list):
        raise Malformed("'detections' is no list")
    if not is_nsfw and detections:
        raise Malformed("'is_nsfw' is false, but 'detections' is not empty")
    if not is_nsfw and "threshold" in verdict and max_score > 0 and max_score >= _fraction(verdict, "threshold"):
        raise Malformed("'is_nsfw' is false, but 'max_score' reaches 'threshold'")
    return NudityVerdict(is_nsfw, max_score)


def read_facts(text: Any) -> Facts:
    """Read what the JSON extractor wrote.

    Raises:
        Malformed: a key is missing or of another type, or it reports an error.
    """
    facts = _read_object(text)
    primary = facts.get("primary_subject")
    if not isinstance(primary, str):
        raise Malformed("'primary_subject' is missing or no string")
    secondary = facts.get("secondary_subjects")
    if not isinstance(secondary, list) or not all(isinstance(subject, str) for subject in secondary):
        raise Malformed("'secondary_subjects' is missing or no list of strings")
    return Facts(primary, tuple(secondary), _boolean(facts, "nsfw"), _boolean(facts, "violence"))


def worse_or_equal(state: State, limit: State) -> bool:
    """Whether a state is at least as harmful as another."""
    return STATES.index(state) >= STATES.index(limit)


def multi_domain_violations(
    verdict: Classification, checked: Iterable[str], *, block_unsafe: bool, block_borderline: bool
) -> list[str]:
    """What a multi-domain gate objects to, in words; empty if nothing."""
    limit = _limit(block_unsafe=block_unsafe, block_borderline=block_borderline)
    return [
        f"{_MULTI_DOMAIN_WORDS[domain]} content ({verdict.states[domain]})"
        for domain in checked
        if limit is not None and worse_or_equal(verdict.states[domain], limit)
    ]


def hybrid_violations(
    nudity: NudityVerdict,
    verdict: Classification,
    *,
    block_unsafe: bool,
    block_borderline: bool,
    nudenet_overrides_llama: bool,
) -> list[str]:
    """What a hybrid gate objects to, in words; empty if nothing.

    What NudeNet finds always counts. Where it finds nothing, `nudenet_overrides_llama` says that its eyes are believed
    more than the caption's word on what is sexual; all other domains are the classifier's.
    """
    limit = _limit(block_unsafe=block_unsafe, block_borderline=block_borderline)
    found = []
    if nudity.is_nsfw:
        found.append(f"Sexual content detected by NudeNet (score: {nudity.max_score:.3f})")
    elif not nudenet_overrides_llama and limit is not None and worse_or_equal(verdict.states["sexual"], limit):
        found.append(f"Sexual content (Llama: {verdict.states['sexual']})")
    for domain, words in _HYBRID_WORDS.items():
        state = verdict.states[domain]
        if limit is not None and worse_or_equal(state, limit):
            found.append(f"{words} content ({state})")
    return found


def flag_violations(*, nsfw: bool, violence: bool, stop_on_nsfw: bool, stop_on_violence: bool) -> list[str]:
    """What a gate over two flags objects to, in words; empty if nothing."""
    found = []
    if nsfw and stop_on_nsfw:
        found.append("NSFW content detected")
    if violence and stop_on_violence:
        found.append("Violent content detected")
    return found


def _limit(*, block_unsafe: bool, block_borderline: bool) -> State | None:
    """The first state that is blocked. Whoever blocks the borderline case means the worse one too."""
    if block_borderline:
        return "BORDERLINE"
    return "UNSAFE" if block_unsafe else None


def _read_object(text: Any) -> dict[str, Any]:
    if not isinstance(text, str):
        raise Malformed(f"it is no text, but {_kind(text)}")
    if not text.strip():
        raise Malformed("it is empty")
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise Malformed(f"it is {_kind(value)}, no JSON object")
    if "error" in value:
        raise Malformed(f"it reports an error: {_shown(value['error'])}")
    return value


def _no_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values for one key, nobody can say which is meant."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise Malformed(f"the key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is no number")


def _boolean(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key)
    if not isinstance(value, bool):
        raise Malformed(f"{key!r} is missing or neither true nor false")
    return value


def _fraction(values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is not in there
        raise Malformed(f"{key!r} is missing or no number from 0 to 1")
    return float(value)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _shown(value: Any) -> str:
    """A foreign value in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:99] + "…"
