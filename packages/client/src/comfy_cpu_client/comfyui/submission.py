"""Handing a workflow to a ComfyUI: the websocket first, then the files, then the prompt."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from comfy_cpu_client.comfyui import protocol
from comfy_cpu_client.comfyui.address import Settings
from comfy_cpu_client.comfyui.files import FileUse, Upload, find_uses, name_files, plan_upload
from comfy_cpu_client.comfyui.messages import FEATURE_FLAGS
from comfy_cpu_client.comfyui.refusals import Acceptance, read_acceptance
from comfy_cpu_client.comfyui.transport import Transport
from comfy_cpu_client.comfyui.websocket import Closed, Websocket
from comfy_cpu_client.errors import TargetRefused, TargetUnreachable
from comfy_cpu_core.errors import TargetError, WorkflowInvalid
from comfy_cpu_core.nodes import NodeSignature
from comfy_cpu_core.results import RunRequest

__all__ = ["Accepted", "Submission"]

#: An input that no node has. It makes a node another one for ComfyUI's cache and is not handed to it.
_RERUN = "comfy_cpu_run"

# How long to wait for the first message on the websocket.
_HELLO_SECONDS = 2.0

# How long a prompt whose answer was lost is looked for, in seconds: to follow it, or to have it not run.
_SEARCH_SECONDS, _WITHDRAW_SECONDS = 3.0, 1.0
_SEARCH_AGAIN_SECONDS = 0.2

# With these, something before the ComfyUI says that it had no answer from it.
_GATEWAY_STATUSES = frozenset({502, 503, 504})


@dataclass(frozen=True)
class Accepted:
    """A prompt that the ComfyUI has accepted.

    Attributes:
        prompt: as it was sent: files have the names that they have there.
        client_id: whose websocket is told of it.
        websocket: None if none could be opened.
        websocket_possible: whether it is worth another try.
        warnings: what the user should know.
    """

    prompt: Mapping[str, Mapping[str, Any]]
    prompt_id: str
    client_id: str
    websocket: Websocket | None
    websocket_possible: bool
    warnings: tuple[str, ...]


class Submission:
    """One try to hand over a workflow; `send` may be called once.

    Args:
        signature: class_type → what the class takes, or None if the ComfyUI does not know it.
        deadline: when the run is to be over (`time.monotonic`).
    """

    def __init__(
        self,
        request: RunRequest,
        transport: Transport,
        settings: Settings,
        signature: Callable[[str], NodeSignature | None],
        deadline: float | None,
    ) -> None:
        self._request = request
        self._transport = transport
        self._settings = settings
        self._signature = signature
        self._deadline = deadline
        self._client_id = uuid.uuid4().hex
        self._prompt_id = str(uuid.uuid4())
        self._websocket: Websocket | None = None
        self._websocket_possible = True

    def send(self) -> Accepted:
        """Hand it over.

        Raises:
            WorkflowInvalid: ComfyUI does not run it, or not all of it.
            TargetError: it cannot be reached or refuses; `DeadlineExceeded` if this took too long.
        """
        uses = find_uses(self._request.prompt, self._request.files, self._signature)
        warnings = [
            f"the file {name!r} was not sent: no input of the workflow names it"
            for name in self._request.files
            if name not in {use.file for use in uses}
        ]
        self._open_websocket()
        try:
            prompt, acceptance = self._send(uses)
        except BaseException:
            if self._websocket is not None:
                self._websocket.close()
            raise
        return Accepted(
            prompt,
            acceptance.prompt_id,
            self._client_id,
            self._websocket,
            self._websocket_possible,
            (*warnings, *acceptance.warnings),
        )

    def _open_websocket(self) -> None:
        """Open the websocket, if that is possible: without it, the history is looked at more often."""
        try:
            self._websocket = self._transport.connect(self._client_id, deadline=self._deadline)
            if self._settings.on_preview is not None:
                self._websocket.send(FEATURE_FLAGS)
            # ComfyUI says hello when it knows whom to tell; what happens before that is told to nobody.
            self._websocket.receive(_HELLO_SECONDS)
        except TargetRefused as error:
            if error.status in {401, 403}:
                raise
            self._websocket_possible = error.transient
        except TargetUnreachable:
            pass  # the requests that follow will tell whether anything is there
        except Closed:
            self._websocket = None

    def _send(self, uses: list[FileUse]) -> tuple[Mapping[str, Mapping[str, Any]], Acceptance]:
        folder = self._settings.upload_folder
        try:
            return self._send_with_files_in(folder, uses)
        except WorkflowInvalid as error:
            # A class may list the input folder itself and take nothing from below it.
            if not folder or not _names_a_file(error, uses):
                raise
            return self._send_with_files_in("", uses)

    def _send_with_files_in(
        self, folder: str, uses: list[FileUse]
    ) -> tuple[Mapping[str, Mapping[str, Any]], Acceptance]:
        names: dict[str, str] = {}
        for name in dict.fromkeys(use.file for use in uses):
            names[name] = self._upload(plan_upload(name, self._request.files[name], folder))
        prompt = name_files(self._request.prompt, {use: names[use.file] for use in uses})
        if self._settings.rerun_outputs:
            self._mark_outputs(prompt)
        acceptance = self._post(prompt)
        if acceptance.invalid is not None:
            self._withdraw(acceptance.prompt_id)
            raise acceptance.invalid
        return prompt, acceptance

    def _upload(self, upload: Upload) -> str:
        """Send a file unless it is there; gives its name in the prompt."""
        found = self._transport.send(protocol.find_upload(upload), deadline=self._deadline)
        if found.status == 200 and found.size == len(upload.data):
            return upload.name
        return protocol.parse_upload(self._transport.send(protocol.upload(upload), deadline=self._deadline))

    def _mark_outputs(self, prompt: dict[str, dict[str, Any]]) -> None:
        for node in prompt.values():
            known = self._signature(str(node.get("class_type")))
            if known is not None and known.output_node:
                node["inputs"] = {**node.get("inputs", {}), _RERUN: self._client_id}

    def _post(self, prompt: Mapping[str, Mapping[str, Any]]) -> Acceptance:
        """Send the prompt, once: whether it was accepted is found out where the answer was lost."""
        request = protocol.post_prompt(prompt, self._prompt_id, self._client_id, self._request.comfy_org_api_key)
        try:
            answer = self._transport.send(request, deadline=self._deadline)
        except (TargetUnreachable, TargetRefused) as error:
            lost = error.sent if isinstance(error, TargetUnreachable) else error.status in _GATEWAY_STATUSES
            if lost and (found := self._search(_SEARCH_SECONDS)) is not None:
                return Acceptance(found)
            raise
        except BaseException:  # the deadline, or Ctrl-C: it must not run on with nobody waiting for it
            if (found := self._search(_WITHDRAW_SECONDS)) is not None:
                self._withdraw(found)
            raise
        return read_acceptance(answer, prompt)

    def _search(self, seconds: float) -> str | None:
        """Look whether the prompt was accepted; gives what the server calls it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(TargetError):
                queue = protocol.parse_queue(self._look(protocol.get_queue(), end))
                if (found := queue.of_client(self._client_id)) is not None:
                    return found
                history = self._look(protocol.get_history(self._prompt_id), end)
                if protocol.parse_history(history, self._prompt_id) is not None:
                    return self._prompt_id
            time.sleep(_SEARCH_AGAIN_SECONDS)
        return None

    def _look(self, request: protocol.Request, end: float) -> protocol.Answer:
        return self._transport.send(request, deadline=end, attempts=1)

    def _withdraw(self, prompt_id: str) -> None:
        """Have a prompt not run that was accepted all the same."""
        end = time.monotonic() + _WITHDRAW_SECONDS
        with suppress(TargetError):
            self._look(protocol.delete_queued(prompt_id), end)
            if protocol.parse_queue(self._look(protocol.get_queue(), end)).place(prompt_id) == "running":
                self._look(protocol.interrupt(prompt_id), end)


def _names_a_file(error: WorkflowInvalid, uses: list[FileUse]) -> bool:
    """Whether a class does not know the name that one of our files has there."""
    ours = {(use.node_id, use.input) for use in uses}
    return any(
        problem.get("type") == "value_not_in_list"
        and (node_id, (problem.get("extra_info") or {}).get("input_name")) in ours
        for node_id, entry in error.node_errors.items()
        for problem in entry.get("errors") or ()
    )
