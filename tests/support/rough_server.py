"""A web server of which every byte is up to the test, over TLS too."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

__all__ = ["Ask", "Certificates", "Handler", "RoughServer", "answer"]


@dataclass(frozen=True)
class Ask:
    """A request that came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    server_name: str | None


#: Answers a request by writing to the socket; it is closed behind it. Looks at the event, which ends the server.
Handler = Callable[[socket.socket, threading.Event], None]


def answer(
    body: bytes = b"", *, status: str = "200 OK", headers: dict[str, str] | None = None, length: int | None = None
) -> Handler:
    """A handler that gives a body, and says its length (or another one)."""
    given = {"Content-Length": str(len(body) if length is None else length), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)

    def handle(sock: socket.socket, ended: threading.Event) -> None:
        sock.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    return handle


@dataclass
class RoughServer:
    """Serves until the end of the block.

    Attributes:
        host: the address that it listens on.
        paths: target → handler; anything else is a 404.
        tls: a server's certificate and key; None for plain HTTP.
        port: to listen on; 0 for any.
        asks: every request, in order.
    """

    host: str = "127.0.0.1"
    paths: dict[str, Handler] = field(default_factory=dict)
    tls: Path | None = None
    port: int = 0
    asks: list[Ask] = field(default_factory=list)

    def __enter__(self) -> RoughServer:
        self._ended = threading.Event()
        self._names: dict[int, str | None] = {}
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._socket = socket.create_server((self.host, self.port), family=family)
        self.port = self._socket.getsockname()[1]
        self._context: ssl.SSLContext | None = None
        if self.tls is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(self.tls)
            self._context.sni_callback = lambda sock, name, _: self._names.update({id(sock): name})
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def url(self, path: str, host: str | None = None) -> str:
        shown = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{'http' if self.tls is None else 'https'}://{shown}:{self.port}{path}"

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError):  # the client may go away at any time
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            try:
                ask = self._read(sock)
                self.asks.append(ask)
                self.paths.get(ask.target, answer(status="404 Not Found"))(sock, self._ended)
            finally:
                sock.close()

    def _read(self, sock: socket.socket) -> Ask:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = sock.recv(65536)
            if not chunk:
                raise ConnectionResetError
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += sock.recv(65536)
        return Ask(method, target, headers, body, self._names.get(id(sock)))


class Certificates:
    """A certificate authority of its own, in a directory."""

    def __init__(self, directory: Path) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        self._directory = directory
        self._x509, self._hashes, self._serialization, self._ec = x509, hashes, serialization, ec
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA for tests")])
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, host: str) -> Path:
        """A certificate for a host, with its key."""
        x509, serialization = self._x509, self._serialization
        key = self._ec.generate_private_key(self._ec.SECP256R1())
        certificate = (
            self._builder(x509.Name([]), key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .sign(self._key, self._hashes.SHA256())
        )
        path = self._directory / f"{host}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    def _builder(self, subject, key):  # type: ignore[no-untyped-def]
        now = datetime.datetime.now(datetime.UTC)
        return (
            self._x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(self._x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )
