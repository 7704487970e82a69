"""What a file input may be given as, and reading it."""

from __future__ import annotations

from pathlib import Path

from comfy_cpu_client.pictures import ArrayLike, Picture, PictureLike, encode_picture
from comfy_cpu_client.prepare import FileInput
from comfy_cpu_core.errors import InputError

__all__ = ["MAX_FILE_BYTES", "FileValue", "read_file"]

#: What a file input may be: a path, bytes, bytes with a name, a picture of Pillow, or an array.
FileValue = str | Path | bytes | FileInput | PictureLike

#: The largest file that an input may be: beyond it a device, or a mistake, would fill the memory.
MAX_FILE_BYTES = 2**30


def read_file(what: str, key: str, value: FileValue) -> FileInput:
    """A file input as a file.

    Args:
        what: what to call it in messages.
        key: ``NODE.INPUT``: what it is called if it has no name of its own.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(value, FileInput):
        return value
    name = key.replace(":", "-")
    if isinstance(value, bytes):
        return FileInput(f"{name}.bin", value)
    if isinstance(value, str | Path):
        return _read_path(what, Path(value))
    if isinstance(value, Picture | ArrayLike):
        return FileInput(f"{name}.png", encode_picture(what, value))
    raise InputError(
        f"{what} is a {type(value).__name__}", remedy="give a path, bytes, a FileInput, a picture of Pillow or an array"
    )


def _read_path(what: str, path: Path) -> FileInput:
    try:
        with path.open("rb") as file:  # may be a pipe: its size is known at its end
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{what}: there is no file {path}", remedy="check the path") from None
    except IsADirectoryError:
        raise InputError(f"{what}: {path} is a directory", remedy="name one file") from None
    except OSError as error:
        raise InputError(f"{what}: cannot read {path}: {error.strerror}") from None
    except ValueError:  # a null byte in the path
        raise InputError(f"{what}: {str(path)!r} is not a path", remedy="check the path") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(
            f"{what}: {path} has more than {MAX_FILE_BYTES:,} bytes", remedy="give a smaller file: a picture"
        )
    return FileInput(path.name, data)
