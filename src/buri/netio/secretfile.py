"""Files that hold secrets: 0600, replaced whole (written beside, synced, renamed), so that a crash leaves the old or the
new one; and private keys that are made once and kept in such a file.

A key's file is two lines: the format, and the key's text.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TypeVar

from buri.core.errors import ConfigError, NotPermittedError, SystemFault, WireError
from buri.core.keys import KEY_BYTES, PrivateKey

_KeyT = TypeVar("_KeyT", bound=PrivateKey)


def write_secret(path: Path, data: bytes) -> None:
    """Replace `path` by a 0600 file of `data`; it is on disk when the call returns. Raises SystemFault."""
    _replace(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """The same for what everybody may read (0644, less the umask): a reader meets the old file or the new one, whole."""
    _replace(path, data, 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(f".{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # the rename, too, has to outlive a power cut
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):  # half of it, on a full disk
            beside.unlink()
        raise SystemFault(
            f"{path} cannot be written: {error.strerror}.", remedy="Free space or rights there."
        ) from error


def load_or_make_key(path: Path, kind: type[_KeyT], file_format: str) -> _KeyT:
    """The key of `path`, made when there is no file. Raises ConfigError for a damaged file, which is left as it is;
    NotPermittedError or SystemFault when it cannot be read or kept."""
    try:
        lines = path.read_bytes().decode("ascii", "replace").splitlines()
    except FileNotFoundError:
        key = kind.from_entropy(os.urandom(KEY_BYTES))
        write_secret(path, f"{file_format}\n{key.text()}\n".encode())
        return key
    except PermissionError as error:
        raise NotPermittedError(f"{path} may not be read.", remedy="Run as its owner, or as root.") from error
    except OSError as error:
        raise SystemFault(f"{path} cannot be read: {error.strerror}.") from error
    if len(lines) != 2 or lines[0] != file_format:
        raise ConfigError(f"{path} is not a key file of a known version.", remedy="Restore it from a backup.")
    try:
        return kind.parse(lines[1])
    except WireError as error:
        raise ConfigError(f"{path} is damaged: {error}", remedy="Restore it from a backup.") from error
