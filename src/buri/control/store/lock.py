"""One server process a state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from buri.core.errors import InUseError, NotPermittedError, SystemFault


class StateLock:
    """Holds `server.lock` of a state directory (made 0700 when missing) until `close` or the process's end.

    Raises InUseError when another process holds it, NotPermittedError or SystemFault when the directory will not do.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(directory / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise NotPermittedError(
                f"No right to write in the state directory {directory}.",
                remedy="Run as its owner, or give --state-dir.",
            ) from error
        except OSError as error:
            raise SystemFault(f"The state directory {directory} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise InUseError(
                f"Another buri server uses the state directory {directory}.",
                remedy="Stop it first, or give this one its own --state-dir.",
            ) from error

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
