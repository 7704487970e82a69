"""Nodes that let a picture or a subject pass, or stop the run.

They fail closed: only a whole, readable verdict opens a gate. A verdict that forbids raises `ContentBlocked`; one that
cannot be read (broken JSON, a missing domain, an unknown state, a reported error, …) raises a `NodeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from comfy_cpu_core.errors import ContentBlocked, NodeError
from comfy_cpu_nodes import host
from comfy_cpu_nodes.ops import verdicts
from comfy_cpu_nodes.ops.verdicts import DOMAINS, Facts, Malformed

__all__ = [
    "HybridSafetyGate",
    "ImageSafetyGate",
    "LLMJSONParser",
    "LLMSafetyGate",
    "LLMSafetyGateJSON",
    "MultiDomainSafetyGate",
]

T = TypeVar("T")

_PASSED_HYBRID = "SAFE: Passed NudeNet + Multi-Domain checks"
_PASSED_MULTI_DOMAIN = "SAFE: All domains passed safety check"


def _switch(default: bool, tooltip: str) -> tuple[str, dict[str, Any]]:
    return "BOOLEAN", {"default": default, "tooltip": tooltip}


def _text(tooltip: str) -> tuple[str, dict[str, Any]]:
    return "STRING", {"forceInput": True, "tooltip": tooltip}


_BLOCK_UNSAFE = _switch(True, "Stop at UNSAFE.")
_BLOCK_BORDERLINE = _switch(False, "Stop at BORDERLINE, and so at UNSAFE too.")
_STOPS = {
    "stop_on_nsfw": _switch(True, "Stop where nsfw is true."),
    "stop_on_violence": _switch(True, "Stop where violence is true."),
}
_EXTRACTED = _text("What the JSON extractor gave.")


class HybridSafetyGate:
    """A gate over NudeNet's and the classifier's verdict."""

    CATEGORY = "LLM/Local/Safety"
    DESCRIPTION = (
        "Lets the picture pass if neither NudeNet nor the multi-domain classifier objects, and stops the run otherwise. "
        "A verdict that is missing, broken or reports an error stops it too."
    )
    FUNCTION = "check_hybrid"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "status")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "Passes unchanged."}),
                "nudenet_json": _text("What the NudeNet safety checker gave."),
                "multidomain_json": _text("What the multi-domain classifier gave."),
            },
            "optional": {
                "block_unsafe": _BLOCK_UNSAFE,
                "block_borderline": _BLOCK_BORDERLINE,
                "nudenet_overrides_llama": _switch(
                    True, "Where NudeNet finds nothing, what the classifier says of 'sexual' does not count."
                ),
            },
        }

    def check_hybrid(
        self,
        image: Any,
        nudenet_json: Any,
        multidomain_json: Any,
        block_unsafe: bool = True,
        block_borderline: bool = False,
        nudenet_overrides_llama: bool = True,
    ) -> tuple[Any, str]:
        """Give the picture and a line of text.

        Raises:
            ContentBlocked: one of the two objects.
            NodeError: a verdict cannot be read, or a switch is neither true nor false.
        """
        switches = _switches(
            block_unsafe=block_unsafe,
            block_borderline=block_borderline,
            nudenet_overrides_llama=nudenet_overrides_llama,
        )
        nudity = _read(verdicts.read_nudity, nudenet_json, "nudenet_json")
        verdict = _read(verdicts.read_classification, multidomain_json, "multidomain_json")
        found = verdicts.hybrid_violations(nudity, verdict, **switches)
        if found:
            raise ContentBlocked(f"Content blocked by hybrid safety gate: {' | '.join(found)}")
        if nudenet_overrides_llama and verdict.states["sexual"] != "SAFE":
            host.warn(
                f"the classifier rated 'sexual' {verdict.states['sexual']}; NudeNet found nothing and overrides it"
            )
        return image, _status(_PASSED_HYBRID, verdict, DOMAINS[1:])


class MultiDomainSafetyGate:
    """A gate over the classifier's verdict."""

    CATEGORY = "LLM/Local/Safety"
    DESCRIPTION = (
        "Lets the picture pass if the multi-domain classifier does not object, and stops the run otherwise. A verdict "
        "that is missing, broken or reports an error stops it too."
    )
    FUNCTION = "check_and_gate"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "status")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "Passes unchanged."}),
                "classification_json": _text("What the multi-domain classifier gave."),
            },
            "optional": {
                "block_unsafe": _BLOCK_UNSAFE,
                "block_borderline": _BLOCK_BORDERLINE,
                **{f"check_{domain}": _switch(True, f"Whether '{domain}' counts.") for domain in DOMAINS},
            },
        }

    def check_and_gate(
        self,
        image: Any,
        classification_json: Any,
        block_unsafe: bool = True,
        block_borderline: bool = False,
        check_sexual: bool = True,
        check_violence: bool = True,
        check_hate: bool = True,
        check_disturbing: bool = True,
        check_drugs: bool = True,
    ) -> tuple[Any, str]:
        """Give the picture and a line of text.

        Raises:
            ContentBlocked: the classifier objects in a domain that counts.
            NodeError: the verdict cannot be read (whichever domains count), or a switch is neither true nor false.
        """
        limits = _switches(block_unsafe=block_unsafe, block_borderline=block_borderline)
        checks = _switches(
            sexual=check_sexual,
            violence=check_violence,
            hate=check_hate,
            disturbing=check_disturbing,
            drugs=check_drugs,
        )
        verdict = _read(verdicts.read_classification, classification_json, "classification_json")
        checked = [domain for domain in DOMAINS if checks[domain]]
        found = verdicts.multi_domain_violations(verdict, checked, **limits)
        if found:
            if verdict.reasons:
                found.append(f"Reasons: {', '.join(verdict.reasons)}")
            raise ContentBlocked(f"Content blocked by multi-domain safety gate: {' | '.join(found)}")
        if not checked:
            return image, "NOT CHECKED: every domain is switched off"
        return image, _status(_PASSED_MULTI_DOMAIN, verdict, DOMAINS)


class LLMJSONParser:
    """Takes the extractor's JSON apart."""

    CATEGORY = "LLM/Local"
    DESCRIPTION = "Takes apart what the JSON extractor gave. Stops with an error if it is broken or incomplete."
    FUNCTION = "parse_json"
    RETURN_TYPES = ("STRING", "STRING", "BOOLEAN", "BOOLEAN")
    RETURN_NAMES = ("primary_subject", "secondary_subjects_text", "nsfw", "violence")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"json_string": _EXTRACTED}}

    def parse_json(self, json_string: Any) -> tuple[str, str, bool, bool]:
        """Give the four facts; the secondary subjects are joined by commas.

        Raises:
            NodeError: it cannot be read.
        """
        facts = _read(verdicts.read_facts, json_string, "json_string")
        return facts.primary_subject, facts.secondary_text, facts.nsfw, facts.violence


class LLMSafetyGate:
    """A gate over two flags."""

    CATEGORY = "LLM/Local"
    DESCRIPTION = "Lets the subject pass unless one of the connected flags forbids it."
    FUNCTION = "check_safety"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("safe_subject",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        flag = ("BOOLEAN", {"default": False, "forceInput": True, "tooltip": "A flag of the JSON parser."})
        return {
            "required": {"primary_subject": _text("Passes unchanged.")},
            "optional": {"nsfw": flag, "violence": flag, **_STOPS},
        }

    def check_safety(
        self,
        primary_subject: Any,
        nsfw: Any = None,
        violence: Any = None,
        stop_on_nsfw: bool = True,
        stop_on_violence: bool = True,
    ) -> tuple[Any]:
        """Give the subject.

        A flag that is not connected (None) counts as false, as existing workflows expect, with a warning; a gate with
        nothing to look at does not open.

        Raises:
            ContentBlocked: a flag is set, and its switch too.
            NodeError: a flag or a switch is neither true nor false, or no flag that counts is connected.
        """
        stops = _switches(stop_on_nsfw=stop_on_nsfw, stop_on_violence=stop_on_violence)
        flags = {"nsfw": nsfw, "violence": violence}
        missing = [name for name, value in flags.items() if value is None and stops[f"stop_on_{name}"]]
        if missing and len(missing) == sum(stops.values()):
            raise host.node_error(
                f"the gate has nothing to look at: {' and '.join(missing)} not connected",
                remedy="connect the flags of LLM JSON Parser, or switch off what must not be checked",
            )
        for name in missing:
            host.warn(f"safety gate: {name} is not connected, so it was not checked")
        values = _switches(**{name: value for name, value in flags.items() if value is not None})
        _stop(nsfw=values.get("nsfw", False), violence=values.get("violence", False), **stops)
        return (primary_subject,)


class LLMSafetyGateJSON:
    """A gate over the extractor's JSON."""

    CATEGORY = "LLM/Local"
    DESCRIPTION = "As LLM JSON Parser, but stops the run where a flag forbids to go on."
    FUNCTION = "check_safety_json"
    RETURN_TYPES = LLMJSONParser.RETURN_TYPES
    RETURN_NAMES = LLMJSONParser.RETURN_NAMES

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"json_string": _EXTRACTED}, "optional": {**_STOPS}}

    def check_safety_json(
        self, json_string: Any, stop_on_nsfw: bool = True, stop_on_violence: bool = True
    ) -> tuple[str, str, bool, bool]:
        """Give the four facts.

        Raises:
            ContentBlocked: a flag is set, and its switch too.
            NodeError: the JSON cannot be read, or a switch is neither true nor false.
        """
        facts = _checked_facts(json_string, stop_on_nsfw=stop_on_nsfw, stop_on_violence=stop_on_violence)
        return facts.primary_subject, facts.secondary_text, facts.nsfw, facts.violence


class ImageSafetyGate:
    """A gate for a picture over the extractor's JSON."""

    CATEGORY = "LLM/Local"
    DESCRIPTION = "Lets the picture pass unless a flag in the JSON extractor's answer forbids it."
    FUNCTION = "check_image_safety"
    RETURN_TYPES = ("IMAGE", "STRING", "BOOLEAN", "BOOLEAN")
    RETURN_NAMES = ("image", "primary_subject", "nsfw", "violence")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": ("IMAGE", {"tooltip": "Passes unchanged."}), "json_string": _EXTRACTED},
            "optional": {**_STOPS},
        }

    def check_image_safety(
        self, image: Any, json_string: Any, stop_on_nsfw: bool = True, stop_on_violence: bool = True
    ) -> tuple[Any, str, bool, bool]:
        """Give the picture and three facts. Raises as `LLMSafetyGateJSON.check_safety_json` does."""
        facts = _checked_facts(json_string, stop_on_nsfw=stop_on_nsfw, stop_on_violence=stop_on_violence)
        return image, facts.primary_subject, facts.nsfw, facts.violence


def _checked_facts(json_string: Any, *, stop_on_nsfw: bool, stop_on_violence: bool) -> Facts:
    stops = _switches(stop_on_nsfw=stop_on_nsfw, stop_on_violence=stop_on_violence)
    facts = _read(verdicts.read_facts, json_string, "json_string")
    _stop(nsfw=facts.nsfw, violence=facts.violence, **stops)
    return facts


def _stop(*, nsfw: bool, violence: bool, stop_on_nsfw: bool, stop_on_violence: bool) -> None:
    found = verdicts.flag_violations(
        nsfw=nsfw, violence=violence, stop_on_nsfw=stop_on_nsfw, stop_on_violence=stop_on_violence
    )
    if found:
        raise ContentBlocked(f"Content blocked by safety gate: {' and '.join(found)}")


def _read(reader: Callable[[Any], T], text: Any, name: str) -> T:
    try:
        return reader(text)
    except Malformed as error:
        raise _unreadable(f"{name} is no verdict that can be read: {error}") from error


def _unreadable(message: str) -> NodeError:
    return host.node_error(message, remedy="look at the node that made it; nothing passes this gate without a verdict")


def _switches(**values: Any) -> dict[str, bool]:
    """Booleans, and nothing that merely looks like one: the text "false" would count as true, None as false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise _unreadable(f"{name} is {value!r}, neither true nor false")
    return values


def _status(passed: str, verdict: verdicts.Classification, domains: Iterable[str]) -> str:
    """The reference's text, unless the gate was told to look away: UNSAFE never reads as SAFE."""
    ignored = [domain for domain in domains if verdict.states[domain] == "UNSAFE"]
    return f"NOT BLOCKED: the gate's settings ignore UNSAFE in {', '.join(ignored)}" if ignored else passed
