"""What can go wrong with the Hub, in one clear line each.

huggingface_hub raises its own exceptions and those of its HTTP library (httpx or httpx2, by version), with messages of
several lines that hold signed URLs. Nothing of them is passed on but the status, the reason and what to do.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from comfy_cpu_core.errors import HubError

__all__ = ["BodyTooShort", "hub_error"]

_AGAIN = "what has arrived is kept, and the next fetch goes on there"


class BodyTooShort(Exception):
    """An answer ended, properly, before the file did."""


def hub_error(
    error: Exception, *, repo: str, what: str, endpoint: str, has_token: bool, kept: int | None = None
) -> HubError:
    """Say what `error`, raised while the Hub was asked, means.

    Args:
        repo: ``OWNER/NAME``.
        what: what was asked for, for a sentence: ``revision main``, ``model.onnx``.
        endpoint: the Hub's URL.
        has_token: whether a token was sent.
        kept: how many bytes of a file have arrived, None if no file was on its way.
    """
    host = _host(endpoint)
    names = {cls.__name__ for cls in type(error).__mro__}
    # The library's HTTP errors carry the response; its class of exception tells 404s apart.
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if "OfflineModeIsEnabled" in names:
        return HubError(
            f"{repo}: {what} is not on this machine, and HF_HUB_OFFLINE forbids to ask the Hub",
            remedy="unset HF_HUB_OFFLINE, or bring a model tree or HF_HUB_CACHE that has the file",
        )
    if response is not None and status is not None:
        return _of_status(status, names, response.headers, repo=repo, what=what, host=host, has_token=has_token)
    if "HFValidationError" in names:
        return HubError(f"{repo!r} is not the name of a repository on the Hub", remedy="write hf:OWNER/NAME")
    if "ProxyError" in names:
        return HubError(f"the proxy on the way to {host} failed", remedy="check HTTPS_PROXY and NO_PROXY")
    if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)) or "SSL" in str(error):
        return HubError(
            f"no secure connection to {host}: {_reason(error)}",
            remedy="behind a proxy that inspects TLS, name its certificates in SSL_CERT_FILE; else check HF_ENDPOINT",
        )
    if "ConnectError" in names:
        return HubError(
            f"cannot reach {host}: {_reason(error)}",
            remedy="check the network and HF_ENDPOINT, then fetch again" + (f"; {_AGAIN}" if kept else ""),
        )
    if "TimeoutException" in names:
        return HubError(
            f"{host} did not answer in time ({repo}, {what})",
            remedy=(_AGAIN if kept else "try again")
            + "; HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT set the seconds to wait",
        )
    if names & {"BodyTooShort", "NetworkError", "RemoteProtocolError"}:
        if kept is None:
            return HubError(f"{host} broke off its answer ({repo}, {what})", remedy="try again")
        return HubError(f"{host} broke off in the middle of {what} ({repo}), after {kept:,} bytes", remedy=_AGAIN)
    if names & {"InvalidURL", "UnsupportedProtocol"}:
        return HubError(f"{host!r} is not a URL of a Hub", remedy="check HF_ENDPOINT: it looks like https://HOST")
    if names & {"LocalProtocolError", "UnicodeError"}:
        return HubError(
            f"the request to {host} cannot be sent as it is",
            remedy="check HF_TOKEN for characters that do not belong there",
        )
    return HubError(
        f"{host} does not answer as a Hub does ({repo}, {what}: {type(error).__name__})",
        remedy="check HF_ENDPOINT; HF_DEBUG=1 shows every request",
    )


def _of_status(
    status: int, names: set[str], headers: Mapping[str, str], *, repo: str, what: str, host: str, has_token: bool
) -> HubError:
    page = f"https://{host}/{repo}"
    message = f"{host} answered {status} for {repo} ({what})"
    remedy = "try again"
    if "GatedRepoError" in names:
        message = f"{repo} is gated: {host} gives it only to those who accepted its licence ({status})"
        remedy = f"accept the licence on {page}" + (
            ", with the account that HF_TOKEN belongs to"
            if has_token
            else ", then set HF_TOKEN to a token of that account"
        )
    elif "DisabledRepoError" in names:
        message, remedy = f"{repo} was disabled on {host} ({status})", f"see {page}"
    elif status == 401:
        message = f"{host} does not let us read {repo} (401)"
        remedy = (
            "HF_TOKEN was sent: is it valid, and may it read this repository?"
            if has_token
            else "set HF_TOKEN to a token that may read it; the Hub answers so for names that do not exist, too"
        )
    elif status == 403:
        message = f"{host} forbids to read {repo} (403)"
        remedy = f"see {page}, and whether the token in HF_TOKEN may read it"
    elif "RevisionNotFoundError" in names:
        message, remedy = f"{repo} has no {what} on {host} (404)", f"see {page}/commits/main"
    elif names & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        message, remedy = f"{repo} has no {what} on {host} (404)", f"see {page}/tree/main"
    elif status == 404:
        message = f"there is no repository {repo} on {host} (404)"
        remedy = "check its name; a private one needs HF_TOKEN"
    elif status == 429:
        wait = _wait(headers)
        message = f"{host} answers only so many requests, and these were too many (429)"
        remedy = (f"try again in {wait}" if wait else "try again later") + (
            "" if has_token else "; with HF_TOKEN set, more are allowed"
        )
    elif status >= 500:
        message = f"{host} has a problem of its own ({status})"
        remedy = "try again later; https://status.huggingface.co says more about the public Hub"
    return HubError(message, remedy=remedy, status=status)


def _wait(headers: Mapping[str, str]) -> str:
    """How long to wait, from ``Retry-After`` (seconds or a date) or the Hub's ``RateLimit``; or empty."""
    after = headers.get("Retry-After", "").strip()
    if not after and (found := re.search(r"\bt=(\d+)", headers.get("RateLimit", ""))):
        after = found[1]
    if after.isdigit():
        return f"{after} s"
    return after if re.fullmatch(r"[A-Za-z0-9 :,+-]{1,40}", after) else ""


def _host(endpoint: str) -> str:
    """The endpoint's host and port, without a user's name and password."""
    netloc = urlsplit(endpoint).netloc
    return netloc.rpartition("@")[2] or endpoint


def _reason(error: Exception) -> str:
    """What the operating system or the TLS library said; never a URL, which may be a signed one."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return re.sub(r"\S+://\S*", "…", str(error).partition("\n")[0])


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
