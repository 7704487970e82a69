"""What it means when a ComfyUI, or what stands before it, says no. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from comfy_cpu_client.comfyui.protocol import Answer, Request
from comfy_cpu_client.errors import TargetRefused
from comfy_cpu_core.errors import WorkflowInvalid
from comfy_cpu_core.workflow import is_link

__all__ = ["Acceptance", "read_acceptance", "refusal"]


def refusal(
    where: str, request: Request, status: int, *, location: str | None = None, authorized: bool = False
) -> TargetRefused:
    """The error for an answer with a status that its request does not accept.

    Args:
        where: the ComfyUI's address, without what may be secret.
        location: where a redirect leads.
        authorized: whether the request carried a password or a token.
    """
    asked = f"{request.method} {request.path}"
    match status:
        case 401:
            what = f"{where} does not take this login (401)" if authorized else f"{where} wants a login (401)"
            remedy = "put user and password into the address (comfyui+https://USER:PASSWORD@HOST), or give a token"
        case 403:
            what = f"{where} does not allow {asked} (403)"
            remedy = "ask whoever runs it what this login may do, and whether it may be asked from here"
        case 404:
            what = f"{where} answers 404 to {asked}: no ComfyUI is there"
            remedy = "check the address, its port and its path"
        case 413 if request.upload is not None:
            what = f"{where} takes no file of {len(request.upload.data):,} bytes (413)"
            remedy = "send a smaller file, or start ComfyUI with a larger --max-upload-size (100 MB if not given)"
        case 413:
            what, remedy = f"{where} takes no workflow of this size (413)", "send large values as files"
        case _ if 300 <= status < 400:
            what = f"{where} sends {asked} elsewhere ({status}){_shown(location)}"
            remedy = "give the address that it leads to, or the login that it asks for"
        case _:
            what = f"{where} answers {status} {_phrase(status)} to {asked}"
            remedy = "look into ComfyUI's log" if status >= 500 else "is a ComfyUI at that address?"
    return TargetRefused(what, status=status, remedy=remedy)


def _shown(location: str | None) -> str:
    """Where a redirect leads, without what may be secret."""
    if location is None:
        return ""
    try:
        parts = urlsplit(location)
        return (
            f": to {parts.scheme or 'http'}://{parts.hostname}{parts.path}" if parts.hostname else f": to {parts.path}"
        )
    except ValueError:
        return ""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(an unknown status)"


@dataclass(frozen=True)
class Acceptance:
    """The answer to a prompt that ComfyUI runs, or would.

    ComfyUI runs the outputs that are valid and leaves out the others. What is left out may be the branch with the safety
    check, so that is no way to run a workflow here: as in the engine, only an output node that is connected to nothing
    and lacks an input may be left out.

    Attributes:
        prompt_id: what the prompt is called.
        invalid: what is wrong with nodes that ComfyUI would leave out; None if nothing is.
        warnings: which nodes it leaves out without harm.
    """

    prompt_id: str
    invalid: WorkflowInvalid | None = None
    warnings: tuple[str, ...] = ()


def read_acceptance(answer: Answer, prompt: Mapping[str, Mapping[str, Any]]) -> Acceptance:
    """Read the answer to a prompt.

    Raises:
        WorkflowInvalid: ComfyUI does not run it; `node_errors` as it gave them.
        TargetError: this is no such answer.
    """
    document = answer.json()
    if not isinstance(document, dict):
        raise answer.strange("is none to a prompt")
    node_errors = _node_errors(document.get("node_errors"))
    if answer.status == 400:
        raise _invalid(document.get("error"), node_errors, prompt)
    prompt_id = document.get("prompt_id")
    if not isinstance(prompt_id, str) or not prompt_id:
        raise answer.strange("names no prompt")
    harmless = [node_id for node_id, entry in node_errors.items() if _loose_end(node_id, entry, prompt)]
    if len(harmless) < len(node_errors):
        return Acceptance(prompt_id, _invalid(None, node_errors, prompt))
    return Acceptance(prompt_id, None, tuple(_left_out(node_id, node_errors[node_id]) for node_id in harmless))


def _node_errors(value: Any) -> dict[str, dict[str, Any]]:
    # Empty, it is a list in some versions.
    return {str(i): entry for i, entry in value.items() if isinstance(entry, dict)} if isinstance(value, dict) else {}


def _problems(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for problem in entry.get("errors") or ():
        if isinstance(problem, dict):
            yield problem


def _loose_end(node_id: str, entry: Mapping[str, Any], prompt: Mapping[str, Mapping[str, Any]]) -> bool:
    inputs = prompt.get(node_id, {}).get("inputs", {})
    missing = all(problem.get("type") == "required_input_missing" for problem in _problems(entry))
    return missing and entry.get("dependent_outputs") == [node_id] and not any(map(is_link, inputs.values()))


def _left_out(node_id: str, entry: Mapping[str, Any]) -> str:
    name = next((problem.get("details") for problem in _problems(entry)), "")
    return f"node {node_id} ({entry.get('class_type')}) was left out: its input {name!r} is not connected"


def _invalid(
    error: Any, node_errors: Mapping[str, Mapping[str, Any]], prompt: Mapping[str, Mapping[str, Any]]
) -> WorkflowInvalid:
    """The error for a prompt that ComfyUI does not run, or not all of it; it names the first node that is wrong."""
    error = error if isinstance(error, dict) else {}
    everything = [(node_id, problem) for node_id, entry in node_errors.items() for problem in _problems(entry)]
    if not everything:
        says = ": ".join(filter(None, (str(error.get(key) or "") for key in ("message", "details"))))
        remedy = None
        if "does not exist" in says:
            remedy = "install the node pack that brings the class on that ComfyUI"
        return WorkflowInvalid(
            f"ComfyUI does not run the workflow: {says or json.dumps(error)[:200]}",
            node_errors=node_errors,
            error=error,
            remedy=remedy,
        )
    node_id, first = everything[0]
    class_type = node_errors[node_id].get("class_type") or prompt.get(node_id, {}).get("class_type")
    more = f" (and {len(everything) - 1} more)" if len(everything) > 1 else ""
    says = " ".join(f"node {node_id} ({class_type}): {_says(first)}{more}".split())
    return WorkflowInvalid(says, node_errors=node_errors, error=error, remedy=_remedy(node_id, first))


def _says(problem: Mapping[str, Any]) -> str:
    message, details = (str(problem.get(key) or "").strip() for key in ("message", "details"))
    if problem.get("type") == "required_input_missing":
        return f"required input {details!r} is missing"
    return f"{message}: {details}" if details else message


def _remedy(node_id: str, problem: Mapping[str, Any]) -> str | None:
    name = (problem.get("extra_info") or {}).get("input_name")
    if "Invalid" in str(problem.get("details")) and "file" in str(problem.get("details")) and isinstance(name, str):
        return f"give the file with --input {node_id}.{name}=FILE"
    return None
