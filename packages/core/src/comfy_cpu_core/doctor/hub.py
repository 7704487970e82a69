"""The check of the Hugging Face Hub: can models be fetched from here?"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from comfy_cpu_core.doctor.check import Check

__all__ = ["HubAnswer", "HubSettings", "check_hub", "hub_settings", "probe_hub"]

#: Seconds to wait for the Hub.
TIMEOUT_S = 3.0

#: Answers of a server that is there but does not know this address or method: mirrors differ in their front page.
_ALIVE = frozenset({404, 405, 501})

_CREDENTIALS = re.compile(r"//[^/@\s]*@")
_MIRROR = "set HF_ENDPOINT to a mirror or HTTPS_PROXY to a proxy, or copy a model tree from another machine"


@dataclass(frozen=True)
class HubSettings:
    """What huggingface_hub was told by the environment.

    Attributes:
        endpoint: the Hub's address.
        offline: whether it must not be asked (HF_HUB_OFFLINE).
        has_token: whether a token is set, in the environment or by `hf auth login`. The token itself stays away.
    """

    endpoint: str
    offline: bool
    has_token: bool


@dataclass(frozen=True)
class HubAnswer:
    """What came of asking the Hub.

    Attributes:
        status: the HTTP status, or None if there was no answer.
        problem: why there was none.
    """

    status: int | None
    problem: str = ""


def hub_settings() -> HubSettings:
    """Read huggingface_hub's settings, as it reads them itself."""
    from huggingface_hub import constants, get_token

    return HubSettings(constants.ENDPOINT, bool(constants.HF_HUB_OFFLINE), get_token() is not None)


def check_hub(settings: HubSettings, probe: Callable[[str], HubAnswer]) -> Check:
    """Whether the Hub answers.

    Args:
        settings: huggingface_hub's.
        probe: asks the Hub at that address; not called when offline.
    """
    name = "Hugging Face Hub"
    where = _redact(settings.endpoint)
    token = "a token is set" if settings.has_token else "no token is set"
    if settings.offline:
        return Check(name, "note", "not asked: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to fetch models")
    answer = probe(settings.endpoint)
    if answer.status is None:
        return Check(name, "missing", f"{where} cannot be reached: {_redact(answer.problem)}", _MIRROR)
    if answer.status < 400 or answer.status in _ALIVE:
        return Check(name, "ok", f"{where} answers; {token}")
    detail = f"{where} answers HTTP {answer.status}; {token}"
    if answer.status == 429:
        return Check(name, "note", detail, "too many requests: wait, or set HF_TOKEN")
    if answer.status >= 500:
        return Check(name, "missing", detail, f"try again later, or {_MIRROR}")
    return Check(name, "missing", detail, f"it or a proxy refuses this machine: {_MIRROR}")


def probe_hub(endpoint: str, timeout_s: float = TIMEOUT_S) -> HubAnswer:
    """Ask the Hub with huggingface_hub's own HTTP client, so that its proxies and certificates count. Sends no token.

    Never raises, and never takes longer than the timeout: a name server that does not answer is not covered by the
    client's own timeouts, so the question is asked in a thread that is left behind if need be.
    """
    answers: list[HubAnswer] = []

    def ask() -> None:
        try:
            from huggingface_hub import get_session

            response = get_session().request("HEAD", endpoint, timeout=timeout_s)
            answers.append(HubAnswer(response.status_code))
        except Exception as error:
            answers.append(HubAnswer(None, f"{type(error).__name__}: {error}".rstrip(": ")))

    thread = threading.Thread(target=ask, name="comfy-cpu-doctor-hub", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else HubAnswer(None, f"no answer within {timeout_s:g} s")


def _redact(text: str) -> str:
    """Take a user name and password out of an address."""
    return " ".join(_CREDENTIALS.sub("//", text).split())
