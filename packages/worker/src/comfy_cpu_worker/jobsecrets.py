"""What is secret in a job's document: taken out before the document is written to the disk, put back before it runs.

Secret are keys (``comfy_org_api_key``, those of S3); whatever stands under a name that sounds like a secret (``api_key``,
``token``, ``password``, …), also inside ``set`` and the workflow; text that looks like a known kind of token; URLs with
a user or a query in them (presigned ones), and webhooks with something like a token in their path. A text that should
be JSON and is not is secret as a whole.

A wrong guess costs little: a job whose secrets are gone is not run again after the worker died.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from comfy_cpu_worker.errors import JobRejected
from comfy_cpu_worker.fields import is_url

__all__ = ["JobSecrets", "hide_secrets", "with_secrets", "without_secrets"]

#: How deeply a document may be nested. Real ones stay below 30.
_MAX_DEPTH = 120

#: The longest text that may be a token as a whole.
_MAX_TOKEN = 4096

#: The shortest text that is hidden in others.
_SHORTEST = 6

_Path = tuple[str | int, ...]

_SECRET_NAME = re.compile(
    r"token$|secret|passw(or)?d|passphrase|authorization|credential|bearer|cookie"
    r"|(api|access|private|auth|license|encryption)_?key|access_id"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# As OpenAI and Anthropic, Hugging Face, GitHub, Amazon, Google, Slack, RunPod, comfy.org write theirs, and JWT.
_TOKEN = re.compile(
    r"(bearer|basic|token)\s+\S+|sk-[\w-]{16,}|hf_\w{16,}|gh[opsu]_\w{16,}|github_pat_\w{16,}|(AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[\w-]{30,}|xox[a-z]-[\w-]{10,}|rpa?_\w{20,}|comfyui-\w{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    re.IGNORECASE | re.ASCII,
)
# Letters and digits mixed, in one part of a webhook's path: who knows it may post there.
_TOKEN_IN_PATH = re.compile(r"/(?=[^/?#]*[A-Za-z])(?=[^/?#]*\d)[\w-]{16,}(?=[/?#]|$)", re.ASCII)

#: Where JSON may stand as text.
_AS_TEXT: frozenset[_Path] = frozenset({("input",), ("input", "workflow")})


class JobSecrets(Mapping[str, Any]):
    """What was taken out of a document: where it was (a JSON pointer, ``/input/s3/bucket``) → what was there.

    Never shows what it holds.
    """

    def __init__(self, taken: Mapping[str, Any]) -> None:
        self._taken = dict(taken)

    def __getitem__(self, pointer: str) -> Any:
        return self._taken[pointer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._taken)

    def __len__(self) -> int:
        return len(self._taken)

    def __repr__(self) -> str:
        return f"JobSecrets({', '.join(self._taken)})"


def without_secrets(document: Mapping[str, Any]) -> tuple[dict[str, Any], JobSecrets | None]:
    """A copy of a job's document with null in the place of every secret, and the secrets; None if there are none.

    Where ``input`` or ``input.workflow`` is JSON as text, the copy has the JSON itself.

    Raises:
        JobRejected: it is nested absurdly.
    """
    taken: dict[str, Any] = {}
    clean = {key: _clean(value, (key,), _sounds_secret(key), taken) for key, value in document.items()}
    return clean, JobSecrets(taken) if taken else None


def with_secrets(document: Mapping[str, Any], secrets: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `without_secrets`: a copy of the document with the secrets in their places."""
    whole = copy.deepcopy(dict(document))
    for pointer, value in secrets.items():
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        place: Any = whole
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = value
    return whole


def hide_secrets(value: Any, secrets: Collection[Any]) -> Any:
    """A copy of JSON with dots in the place of secrets, wherever they stand in its texts: a node may repeat what it got.

    Args:
        secrets: what to hide; short ones and those that are no text are left alone, since they would be found anywhere.
    """
    texts = sorted(
        {text for text in secrets if isinstance(text, str) and len(text) >= _SHORTEST}, key=len, reverse=True
    )
    return _hide(value, re.compile("|".join(map(re.escape, texts)))) if texts else value


def _hide(value: Any, secret: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return secret.sub("…", value)
    if isinstance(value, Mapping):
        return {key: _hide(item, secret) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(item, secret) for item in value]
    return value


def _clean(value: Any, path: _Path, secret: bool, taken: dict[str, Any]) -> Any:
    """A copy of a value without secrets; `secret` if everything in it is one."""
    if len(path) > _MAX_DEPTH:
        raise JobRejected(f"the job is nested more than {_MAX_DEPTH} levels deep")
    if path in _AS_TEXT and isinstance(value, str) and (path == ("input",) or value.lstrip().startswith("{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return _take(value, path, taken)
    if isinstance(value, Mapping):
        listed = _names_a_secret_widget(value)
        return {
            key: _clean(
                item, (*path, key), secret or _sounds_secret(key) or (listed and key == "widgets_values"), taken
            )
            for key, item in value.items()
        }
    if isinstance(value, list):
        if _is_connection(value, path):
            return list(value)
        return [_clean(item, (*path, index), secret, taken) for index, item in enumerate(value)]
    if value in (None, "") or isinstance(value, bool):
        return value
    if secret or (isinstance(value, str) and _looks_secret(value, path)):
        return _take(value, path, taken)
    return value


def _is_connection(value: list[Any], path: _Path) -> bool:
    """Whether a list is the connection of a node's input in API format; elsewhere, the like may be two widgets' values."""
    from comfy_cpu_core.workflow import is_link  # not needed before the first job

    return path[-2:-1] == ("inputs",) and is_link(value) and not _looks_secret(value[0], path)


def _take(value: Any, path: _Path, taken: dict[str, Any]) -> None:
    taken["".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)] = value


def _sounds_secret(name: str) -> bool:
    return _SECRET_NAME.search(_CAMEL.sub("_", name).lower().replace("-", "_").replace(" ", "_")) is not None


def _names_a_secret_widget(node: Mapping[str, Any]) -> bool:
    """Whether a node in UI format has a widget that sounds like a secret: its values have places, and no names."""
    if not isinstance(node.get("widgets_values"), list):
        return False
    inputs = node.get("inputs")
    names = [item.get("name") for item in inputs if isinstance(item, Mapping)] if isinstance(inputs, list) else []
    return any(isinstance(name, str) and _sounds_secret(name) for name in (*names, node.get("type"), node.get("title")))


def _looks_secret(text: str, path: _Path) -> bool:
    if is_url(text):
        host, _, rest = text.partition("//")[2].partition("/")
        in_path = path == ("webhook",) and _TOKEN_IN_PATH.search(f"/{rest}") is not None
        return "@" in host or "?" in text or in_path
    return len(text) <= _MAX_TOKEN and _TOKEN.fullmatch(text.strip()) is not None
