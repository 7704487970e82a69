"""Where a ComfyUI is, and how to get in: read once from a target's name and options. Secrets show in no repr."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlencode, urlsplit

from comfy_cpu_client.comfyui.messages import Preview
from comfy_cpu_core.errors import UsageError

__all__ = ["SCHEMES", "Address", "Settings"]

SCHEMES = ("comfyui+http", "comfyui+https")


@dataclass(frozen=True)
class Address:
    """A ComfyUI's address.

    Attributes:
        url: ``http://host:8188``, without a slash at its end and without user and password: fit for messages.
        authorization: the value of the header Authorization, or None; secret.
    """

    url: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, name: str, token: str | None = None) -> Address:
        """Read ``comfyui+http(s)://[USER:PASSWORD@]HOST[:PORT][/PATH]``.

        Args:
            name: the target's name.
            token: a bearer token, in place of user and password.

        Raises:
            UsageError: it is no such address. The message repeats nothing that may be secret.
        """
        remedy = "write comfyui+http://HOST:8188, or comfyui+https://USER:PASSWORD@HOST"
        try:
            parts = urlsplit(name)
            port = parts.port
        except ValueError:
            raise UsageError("the address of the ComfyUI is no URL", remedy=remedy) from None
        if parts.scheme not in SCHEMES or not parts.hostname:
            raise UsageError("the address of the ComfyUI names no host", remedy=remedy)
        if parts.query or parts.fragment:
            raise UsageError("the address of the ComfyUI has a ? or # in it, which lead nowhere there", remedy=remedy)
        if token is not None and parts.username is not None:
            raise UsageError("the ComfyUI gets both a token and a user: only one of them can be right")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        scheme = parts.scheme.removeprefix("comfyui+")
        url = f"{scheme}://{host}{f':{port}' if port is not None else ''}{parts.path.rstrip('/')}"
        if token is not None:
            return cls(url, f"Bearer {token}")
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            return cls(url, f"Basic {base64.b64encode(login.encode()).decode()}")
        return cls(url)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every request carries; secret."""
        return {} if self.authorization is None else {"Authorization": self.authorization}

    def at(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """The URL of something there."""
        return f"{self.url}{path}{f'?{urlencode(query)}' if query else ''}"

    def websocket(self, client_id: str) -> str:
        """The URL of the websocket."""
        return self.at("/ws", {"clientId": client_id}).replace("http", "ws", 1)


@dataclass(frozen=True)
class Settings:
    """What a ComfyUI target takes as options.

    Attributes:
        token: a bearer token; secret. User and password stand in the address.
        verify: False to trust any certificate, or a file or directory of CA certificates; True for those that
            ``REQUESTS_CA_BUNDLE`` names, or certifi's.
        proxy: the URL of a proxy; None for what the environment says (``HTTPS_PROXY``, ``NO_PROXY``, …); False for none.
        connect_timeout_s: how long a connection may take.
        read_timeout_s: how long an answer may stand still.
        patience_s: how long a server that went away in the middle of a run may stay away.
        upload_folder: the folder in ComfyUI's input folder that files of runs go to.
        rerun_outputs: whether output nodes run again even if ComfyUI has their results from an earlier run: needed
            where the files that it made then may be gone.
        on_preview: called with every picture that a sampler shows while it works, from another thread.
    """

    token: str | None = field(default=None, repr=False)
    verify: bool | str | Path = True
    proxy: str | Literal[False] | None = field(default=None, repr=False)
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    patience_s: float = 60.0
    upload_folder: str = "comfy-cpu"
    rerun_outputs: bool = False
    on_preview: Callable[[Preview], None] | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Read a target's options.

        Raises:
            UsageError: there is no such option.
        """
        known = cls.__dataclass_fields__
        if strange := set(options) - set(known):
            raise UsageError(f"a ComfyUI target has no option {min(strange)!r}; it has {', '.join(sorted(known))}")
        return cls(**options)
