from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker.hosts import is_loopback
from comfy_cpu_worker.listen import check_exposure, open_sockets, url_of


@contextmanager
def opened(host: str, port: int) -> Iterator[list[socket.socket]]:
    sockets = open_sockets(host, port)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "LocalHost.", "::1", "[::1]", "a.localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, token=False, allowed=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "worker", "localhost.example", "169.254.1.1"])
def test_beyond_loopback_needs_a_token_or_a_word(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UsageError) as caught:
        check_exposure(host, token=False, allowed=False)
    assert "COMFY_CPU_TOKEN" in (caught.value.remedy or "")
    assert "--allow-remote" in (caught.value.remedy or "")
    check_exposure(host, token=True, allowed=False)
    check_exposure(host, token=False, allowed=True)


def test_any_free_port() -> None:
    with opened("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        assert url_of("127.0.0.1", sockets) == f"http://127.0.0.1:{port}"
        assert url_of("0.0.0.0", sockets) == f"http://127.0.0.1:{port}"
        assert url_of("::1", sockets) == f"http://[::1]:{port}"
        with closing(socket.create_connection(("127.0.0.1", port))):
            pass


def test_a_name_is_all_its_addresses_on_one_port() -> None:
    with opened("localhost", 0) as sockets:
        assert len({one.getsockname()[1] for one in sockets}) == 1


def test_a_taken_port_says_by_whom() -> None:
    with opened("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        with pytest.raises(
            UsageError, match=rf"port {port} of 127.0.0.1 is taken by .* \(pid {os.getpid()}\)"
        ) as caught:
            open_sockets("127.0.0.1", port)
    assert "--port" in (caught.value.remedy or "")


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1"):
        open_sockets("192.0.2.1", 0)
    with pytest.raises(UsageError, match="cannot listen on"):
        open_sockets("x" * 300, 0)


def test_asyncio_knows_connections_for_tcp() -> None:
    """Else it does not switch off Nagle's algorithm, and every answer on a kept connection takes 40 ms longer."""
    (listening,) = open_sockets("127.0.0.1", 0)
    with listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
