"""What a model remembers of a constant text, on disk: reading it takes a fraction of a second instead of many.

A file holds a key, a hash of what follows, and llama.cpp's own dump of the state. It is used only if the key is that
of this very model file, text and library, and the hash fits; otherwise it is as if there were none. The folder must be
as trustworthy as the model tree that it is in: llama.cpp itself does not doubt a state.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comfy_cpu_core.files import place_file

__all__ = ["PrefixFile"]

_log = logging.getLogger("comfy_cpu.llama")

_MAGIC = b"comfy-cpu llama state 1\n"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class PrefixFile:
    """Where the state of one constant text is, or would be.

    Attributes:
        path: the file.
        key: what the state depends on.
    """

    path: Path
    key: bytes

    @classmethod
    def of(cls, folder: Path, name: str, *, fingerprint: str, runtime: str, tokens: Sequence[int]) -> PrefixFile:
        """The file in a folder.

        Args:
            folder: need not exist.
            name: for people: the model's and the text's.
            fingerprint: of the model file.
            runtime: the library and its version.
            tokens: the text.
        """
        digest = hashlib.sha256(f"{fingerprint}\n{runtime}\n{','.join(map(str, tokens))}".encode())
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80]
        return cls(folder / f"{stem}-{digest.hexdigest()[:16]}.state", digest.digest())

    def load(self) -> bytes | None:
        """The state; None if there is none, or none that fits."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return None
        head, rest = data[: len(_MAGIC)], memoryview(data)[len(_MAGIC) :]
        key, digest, state = rest[:_DIGEST], rest[_DIGEST : 2 * _DIGEST], rest[2 * _DIGEST :]
        if head != _MAGIC or key != self.key or hashlib.sha256(state).digest() != digest:
            _log.warning("%s is damaged or of another model: it is not used", self.path)
            return None
        return bytes(state)

    def store(self, state: bytes) -> bool:
        """Write the state, whole or not at all. A folder that cannot be written to (a read-only image) is no error."""
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}-{threading.get_native_id()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                beside.write_bytes(_MAGIC + self.key + hashlib.sha256(state).digest() + state)
                place_file(beside, self.path)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            _log.debug("the state of a constant prompt cannot be kept in %s: %s", self.path.parent, error)
            return False
        return True
