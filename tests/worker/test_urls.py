"""Downloads and posts over real sockets, to servers that do their worst."""

from __future__ import annotations

import gzip
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rough_server import Certificates, Handler, RoughServer, answer

from comfy_cpu_core.errors import UsageError
from comfy_cpu_worker import urls as urls_module
from comfy_cpu_worker.errors import JobTooLarge, UrlFailed, UrlRefused
from comfy_cpu_worker.urls import UrlClient, UrlPolicy
from comfy_cpu_worker.wire import Deadline

# Servers listen on 127.0.0.2 where they stand for the public network, and on 127.0.0.1 where they must not be reached.
PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"
MAX = 100_000


@pytest.fixture
def server() -> Iterator[RoughServer]:
    with RoughServer() as running:
        yield running


def client(**policy: Any) -> UrlClient:
    resolver = policy.pop("resolver", None)
    more = {} if resolver is None else {"resolver": resolver}
    return UrlClient(UrlPolicy(**{"allow_private": True, "connect_s": 5, "read_s": 5, "total_s": 20, **policy}), **more)


def get(server: RoughServer, path: str = "/x", **policy: Any) -> Any:
    return client(**policy).get(server.url(path), max_bytes=MAX)


# What works -----------------------------------------------------------------------------------------------------------


def test_a_download(server: RoughServer) -> None:
    server.paths["/dir/a%20b.png?q=1"] = answer(b"picture", headers={"Content-Type": "image/PNG; charset=x"})
    download = get(server, "/dir/a%20b.png?q=1#fragment")
    assert (download.data, download.media_type, download.name) == (b"picture", "image/png", "a b.png")
    (ask,) = server.asks
    assert (ask.method, ask.headers["host"], ask.headers["accept-encoding"]) == (
        "GET", f"127.0.0.1:{server.port}", "identity",
    )  # fmt: skip
    assert not {"authorization", "cookie", "referer"} & set(ask.headers)


def test_a_download_without_a_length(server: RoughServer) -> None:
    server.paths["/x"] = answer(b"all there is", headers={"Content-Length": ""})
    assert get(server).data == b"all there is"


def test_a_download_in_chunks(server: RoughServer) -> None:
    chunked = {"Content-Length": "", "Transfer-Encoding": "chunked"}
    server.paths["/x"] = answer(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", headers=chunked)
    assert get(server).data == b"abcde"


def test_other_letters_in_the_path(server: RoughServer) -> None:
    server.paths["/%C3%A9%20%E5%86%99"] = answer(b"x")
    assert get(server, "/é%20写").data == b"x"


def test_redirects(server: RoughServer) -> None:
    server.paths["/a"] = answer(status="302 Found", headers={"Location": "/b?c"})
    server.paths["/b?c"] = answer(status="307 Temporary Redirect", headers={"Location": server.url("/d/e.png")})
    server.paths["/d/e.png"] = answer(b"there")
    download = get(server, "/a")
    assert (download.data, download.name) == (b"there", "a")


def test_the_next_address_is_tried(server: RoughServer) -> None:
    server.paths["/x"] = answer(b"x")
    resolver = {"host.example": [PUBLIC, PRIVATE]}
    found = client(resolver=lambda host, port: resolver[host]).get(server.url("/x", "HOST.example."), max_bytes=MAX)
    assert found.data == b"x"
    assert server.asks[0].headers["host"] == f"host.example:{server.port}"


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6() -> None:
    try:
        with RoughServer("::1", {"/x": answer(b"six")}) as server:
            assert get(server).data == b"six"
            assert server.asks[0].headers["host"] == f"[::1]:{server.port}"
    except OSError:
        pytest.skip("this machine has no IPv6")


def test_proxies_are_ignored(server: RoughServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("REQUEST_METHOD", raising=False)
    server.paths["/x"] = answer(b"direct")
    assert get(server).data == b"direct"


# Where it must not go -------------------------------------------------------------------------------------------------


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RoughServer, RoughServer]]:
    """A server that is public, and one on the same port that is not."""

    def is_public(address: str, *, allow_private: bool = False) -> bool:
        return address == PUBLIC

    with RoughServer(PUBLIC) as public, RoughServer(PRIVATE, port=public.port) as private:
        monkeypatch.setattr(urls_module, "is_allowed", is_public)
        private.paths["/x"] = answer(b"secret")
        public.paths["/x"] = answer(b"public")
        yield public, private


def outside(public: RoughServer, *answers: list[str], **policy: Any) -> UrlClient:
    """A client for which a host is, one look after the other, at these addresses."""
    left = iter(answers)
    return client(allow_private=False, ports=(public.port,), resolver=lambda host, port: next(left), **policy)


def test_a_name_that_changes_its_address_leads_nowhere_else(network: tuple[RoughServer, RoughServer]) -> None:
    public, private = network
    rebinding = outside(public, [PUBLIC], [PRIVATE])
    assert rebinding.get(public.url("/x", "evil.example"), max_bytes=MAX).data == b"public"
    with pytest.raises(UrlRefused, match=r"http://evil\.example leads to an address that is not public"):
        rebinding.get(public.url("/x", "evil.example"), max_bytes=MAX)
    assert private.asks == []


def test_one_address_that_is_not_public_is_enough(network: tuple[RoughServer, RoughServer]) -> None:
    public, private = network
    with pytest.raises(UrlRefused, match="not public"):
        outside(public, [PUBLIC, PRIVATE]).get(public.url("/x", "evil.example"), max_bytes=MAX)
    assert public.asks == private.asks == []


def test_a_redirect_to_what_is_not_public(network: tuple[RoughServer, RoughServer]) -> None:
    public, private = network
    public.paths["/go"] = answer(status="302 Found", headers={"Location": private.url("/x")})
    with pytest.raises(UrlRefused, match=r"http://127\.0\.0\.1 leads to an address that is not public"):
        outside(public, [PUBLIC], [PRIVATE]).get(public.url("/go", "evil.example"), max_bytes=MAX)
    assert len(public.asks) == 1
    assert private.asks == []


def test_a_redirect_is_resolved_anew(network: tuple[RoughServer, RoughServer]) -> None:
    public, private = network
    public.paths["/go"] = answer(status="301 Moved", headers={"Location": "/x"})
    with pytest.raises(UrlRefused, match="not public"):
        outside(public, [PUBLIC], [PRIVATE]).get(public.url("/go", "evil.example"), max_bytes=MAX)
    assert private.asks == []


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fd00:ec2::254]/",
        "http://0.0.0.0:80/",
        "http://0/",
    ],
)
def test_metadata_is_out_of_reach_even_on_a_trusted_network(server: RoughServer, location: str) -> None:
    server.paths["/x"] = answer(status="302 Found", headers={"Location": location})
    with pytest.raises(UrlRefused, match="not public"):
        get(server)


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("file:///etc/passwd", "neither https:// nor http://"),
        ("gopher://127.0.0.1:6379/_INFO", "neither https:// nor http://"),
        ("http://user:hush@127.0.0.1/", "has a user or a password in it"),
        ("http://127.0.0.1\\@evil.example/", "has a space, a backslash or a control character"),
        ("http://127.0.0.1:99999/", "makes no sense"),
        ("http://[::1/", "redirects to what is no URL"),
    ],
)
def test_a_redirect_to_what_is_no_such_url(server: RoughServer, location: str, problem: str) -> None:
    server.paths["/x"] = answer(status="302 Found", headers={"Location": location})
    with pytest.raises(UrlRefused, match=problem) as caught:
        get(server)
    assert "hush" not in str(caught.value)


def test_redirects_have_an_end(server: RoughServer) -> None:
    server.paths["/x"] = answer(status="302 Found", headers={"Location": "/x"})
    with pytest.raises(UrlRefused, match="by more than 2 redirects"):
        get(server, redirects=2)
    assert len(server.asks) == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "127.1"])
def test_this_machine_is_not_public_however_it_is_written(server: RoughServer, host: str) -> None:
    refused = UrlClient(UrlPolicy(ports=(server.port,)))
    with pytest.raises((UrlRefused, UrlFailed), match=r"not public|cannot be reached"):
        refused.get(server.url("/x", host), max_bytes=MAX)
    assert server.asks == []


# TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def secure(**policy: Any) -> UrlClient:
    return client(resolver=lambda host, port: [PRIVATE], **policy)


def test_tls_goes_by_the_name_of_the_host(certificates: Certificates) -> None:
    with RoughServer(paths={"/x": answer(b"secure")}, tls=certificates.issue("good.example")) as server:
        download = secure(ca_file=certificates.ca).get(server.url("/x", "good.example"), max_bytes=MAX)
        assert download.data == b"secure"
        assert server.asks[0].server_name == "good.example"
        assert server.asks[0].headers["host"] == f"good.example:{server.port}"


def test_a_certificate_must_be_the_hosts_and_known(certificates: Certificates) -> None:
    with RoughServer(paths={"/x": answer(b"secure")}, tls=certificates.issue("good.example")) as server:
        with pytest.raises(UrlFailed, match=r"the certificate of https://evil\.example is not good: Hostname mismatch"):
            secure(ca_file=certificates.ca).get(server.url("/x", "evil.example"), max_bytes=MAX)
        with pytest.raises(UrlFailed, match=r"the certificate of https://good\.example is not good"):
            secure().get(server.url("/x", "good.example"), max_bytes=MAX)
        assert server.asks == []


def test_a_redirect_never_leaves_tls(certificates: Certificates, server: RoughServer) -> None:
    server.paths["/x"] = answer(b"open")
    moved = answer(status="302 Found", headers={"Location": server.url("/x")})
    with (
        RoughServer(paths={"/x": moved}, tls=certificates.issue("good.example")) as first,
        pytest.raises(UrlRefused, match="which is not encrypted"),
    ):
        secure(ca_file=certificates.ca).get(first.url("/x", "good.example"), max_bytes=MAX)
    assert server.asks == []


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read certificates from"):
        secure(ca_file=tmp_path / "missing.pem").get("https://good.example/", max_bytes=MAX)


# What is too much -----------------------------------------------------------------------------------------------------


def test_a_body_that_is_as_large_as_it_may_be(server: RoughServer) -> None:
    server.paths["/x"] = answer(b"x" * MAX)
    assert len(get(server).data) == MAX


def endless(prefix: bytes, block: bytes) -> Handler:
    def handle(sock: socket.socket, ended: threading.Event) -> None:
        sock.sendall(prefix)
        while not ended.is_set():
            sock.sendall(block)

    return handle


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "handler",
    [
        answer(b"x" * (MAX + 1)),
        answer(b"", length=10**12),
        endless(HEAD + b"\r\n", b"x" * 65536),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        answer(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"}),
        answer(zlib.compress(bytes(50_000_000)), headers={"Content-Encoding": "deflate"}),
    ],
    ids=["one byte more", "declared", "endless", "endless in chunks", "gzip bomb", "zlib bomb"],
)
def test_a_body_that_is_too_large(server: RoughServer, handler: Any) -> None:
    server.paths["/x"] = handler
    with pytest.raises(JobTooLarge, match=r"http://127\.0\.0\.1 gives more than 100,000 bytes"):
        get(server)


def test_a_bomb_takes_no_memory(server: RoughServer) -> None:
    server.paths["/x"] = answer(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})
    tracemalloc.start()
    try:
        with pytest.raises(JobTooLarge):
            get(server)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def drip(prefix: bytes) -> Handler:
    """Sends a byte now and then, for as long as anybody listens."""

    def handle(sock: socket.socket, ended: threading.Event) -> None:
        sock.sendall(prefix)
        while not ended.wait(0.05):
            sock.sendall(b"x")

    return handle


@pytest.mark.parametrize(
    "prefix",
    [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", HEAD + b"Content-Length: 100000\r\n\r\n", HEAD + b"\r\n"],
    ids=["status line", "header", "body", "body without length"],
)
def test_a_server_that_takes_its_time(server: RoughServer, prefix: bytes) -> None:
    server.paths["/x"] = drip(prefix)
    with pytest.raises(UrlFailed, match=r"http://127\.0\.0\.1 did not answer in time"):
        get(server, total_s=0.5)


def silence(sock: socket.socket, ended: threading.Event) -> None:
    ended.wait(60)


def test_a_server_that_says_nothing(server: RoughServer) -> None:
    server.paths["/x"] = silence
    with pytest.raises(UrlFailed, match="did not answer in time"):
        get(server, read_s=0.2)


def test_a_handshake_that_does_not_end(certificates: Certificates, server: RoughServer) -> None:
    """A server that takes the connection and does not speak TLS."""
    with socket.create_server((PRIVATE, 0)) as silent:
        url = f"https://good.example:{silent.getsockname()[1]}/"
        with pytest.raises(UrlFailed, match="did not answer in time"):
            secure(connect_s=0.2, ca_file=certificates.ca).get(url, max_bytes=MAX)


def test_a_resolver_that_does_not_answer() -> None:
    asked = threading.Event()
    with pytest.raises(UrlFailed, match=r"http://host\.example did not answer in time"):
        client(connect_s=0.2, resolver=lambda host, port: asked.wait(60) and []).get(
            "http://host.example/", max_bytes=1
        )
    asked.set()


def test_a_deadline_from_outside(server: RoughServer) -> None:
    server.paths["/x"] = drip(HEAD + b"\r\n")
    with pytest.raises(UrlFailed, match="did not answer in time"):
        client().get(server.url("/x"), max_bytes=MAX, deadline=Deadline(0.3))


def then(first: Callable[[], None], handler: Handler) -> Handler:
    def handle(sock: socket.socket, ended: threading.Event) -> None:
        first()
        handler(sock, ended)

    return handle


def test_who_waits_can_give_up(server: RoughServer) -> None:
    cancel = threading.Event()
    server.paths["/x"] = then(cancel.set, drip(HEAD + b"\r\n"))
    with pytest.raises(UrlFailed):
        client(total_s=600).get(server.url("/x"), max_bytes=MAX, deadline=Deadline(600, cancel))


# What is broken -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (answer(status="404 Not Found"), "answered with status 404"),
        (answer(status="500 Oops"), "answered with status 500"),
        (answer(b"x", status="206 Partial"), "answered with status 206"),
        (answer(status="302 Found"), "answered with status 302"),
        (answer(b"half", length=8), "broke off after 4 bytes"),
        (answer(b"5\r\nabc", headers={"Content-Length": "", "Transfer-Encoding": "chunked"}), "does not speak proper HTTP"),
        (answer(b"zz\r\nabc", headers={"Content-Length": "", "Transfer-Encoding": "chunked"}), "does not speak proper HTTP"),
        (answer(gzip.compress(b"abc" * 99)[:-9], headers={"Content-Encoding": "gzip"}), "broke off after"),
        (answer(b"not gzip at all", headers={"Content-Encoding": "gzip"}), "what cannot be decompressed"),
        (answer(gzip.compress(b"a") + b"more", headers={"Content-Encoding": "gzip"}), "gives more behind"),
        (answer(b"x", headers={"Content-Encoding": "br"}), "compresses in a way that was not asked for"),
        (endless(b"", b"\r\n"), "does not speak proper HTTP|broke off"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "does not speak proper HTTP"),
        (lambda sock, ended: sock.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), "does not speak proper HTTP"),
        (lambda sock, ended: None, "cannot be reached|does not speak proper HTTP"),
    ],
)  # fmt: skip
def test_a_server_that_breaks_the_rules(server: RoughServer, handler: Any, problem: str) -> None:
    server.paths["/x?token=hush"] = handler
    with pytest.raises(UrlFailed, match=problem) as caught:
        get(server, "/x?token=hush")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity", "GZIP"])
def test_compressed_all_the_same(server: RoughServer, encoding: str) -> None:
    data = b"picture" * 1000
    packed = {"identity": data, "deflate": zlib.compress(data)}.get(encoding, gzip.compress(data))
    server.paths["/x"] = answer(packed, headers={"Content-Encoding": encoding})
    assert get(server).data == data


def test_nobody_listens() -> None:
    with socket.create_server((PRIVATE, 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UrlFailed, match=r"http://127\.0\.0\.1 cannot be reached: Connection refused"):
        client().get(f"http://127.0.0.1:{port}/x", max_bytes=1)


def test_a_host_that_does_not_exist() -> None:
    def resolver(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(UrlFailed, match=r"http://host\.example cannot be reached: Name or service not known"):
        client(resolver=resolver).get("http://host.example/", max_bytes=1)


# Sending --------------------------------------------------------------------------------------------------------------


def test_sending(server: RoughServer) -> None:
    server.paths["/hook"] = answer(b"thanks", status="201 Created")
    body = b"x" * 300_000
    said = client().send("POST", server.url("/hook"), body, {"Content-Type": "application/json"})
    assert (said.status, said.body) == (201, b"thanks")
    (ask,) = server.asks
    assert (ask.method, ask.body, ask.headers["content-type"]) == ("POST", body, "application/json")


def test_a_redirect_of_what_was_sent_is_an_answer(server: RoughServer) -> None:
    server.paths["/hook"] = answer(status="307 Temporary Redirect", headers={"Location": "/other"})
    assert client().send("POST", server.url("/hook"), b"x", {}).status == 307
    assert len(server.asks) == 1


def test_no_header_is_smuggled_in(server: RoughServer) -> None:
    with pytest.raises(UrlFailed):
        client().send("POST", server.url("/hook"), b"x", {"X-A": "b\r\nX-Evil: yes"})
    assert server.asks == []


def test_only_the_beginning_of_an_answer_is_read(server: RoughServer) -> None:
    server.paths["/hook"] = endless(HEAD + b"\r\n", b"x" * 65536)
    assert len(client().send("POST", server.url("/hook"), b"", {}).body) == 65536
