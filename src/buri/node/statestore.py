"""What a node keeps on disk: its keys, its preferences, its last netmap.

`burid.state` is one JSON object with a format version, a secret file of netio. `netmap.json` beside it lets a restart
carry on while the control server is away; it may be lost without harm. State `mem:` keeps all in memory (an ephemeral
node).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from buri.core.errors import ConfigError, NotPermittedError, SystemFault, WireError
from buri.core.keys import DiscoPrivate, MachinePrivate, NodePrivate
from buri.machine.mapdelta import Netmap
from buri.netio.secretfile import write_secret
from buri.wire.badjson import BAD_JSON
from buri.wire.localapi import Prefs
from buri.wire.tailcfg.node import Login, User

FORMAT = 1
NETMAP_FILE = "netmap.json"


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The state file. Keys are text; `next_node_key` is one whose login is not done; `prefs` is LocalAPI's Prefs."""

    format: int = FORMAT
    machine_key: str = ""
    disco_key: str = ""
    node_key: str = ""
    next_node_key: str = ""
    prefs: msgspec.Raw = msgspec.Raw(b"{}")
    user: User | None = None
    login: Login | None = None

    def __repr__(self) -> str:
        return f"<State format={self.format} logged in={bool(self.node_key)}>"  # the keys are nobody's to print


_FORGOTTEN: dict[str, Any] = {"node_key": "", "next_node_key": "", "user": None, "login": None}


class SavedNetmap(msgspec.Struct, kw_only=True):
    """A netmap and whose it is."""

    format: int
    node_key: str
    netmap: Netmap


class StateStore:
    """Reads and writes the state; every change is on disk when the call returns, and did not happen when it raises."""

    def __init__(self, path: Path | None, wall_s: Callable[[], float] = time.time) -> None:
        """`path` None keeps all in memory; `wall_s` is the machine's clock.

        Raises ConfigError or SystemFault when what is there cannot be used.
        """
        self._path = path
        self.state = self._load()
        state = self.state
        fresh = not (state.machine_key or state.disco_key or state.node_key or state.next_node_key)
        if not fresh and self._clock_went_back(wall_s()):
            # Peers drop handshakes that are older than our last. A new disco key tells them that we began anew.
            self.state = replace(self.state, disco_key=DiscoPrivate.from_entropy(secrets.token_bytes(32)).text())
        if fresh:
            self.state.machine_key = MachinePrivate.from_entropy(secrets.token_bytes(32)).text()
            self.state.disco_key = DiscoPrivate.from_entropy(secrets.token_bytes(32)).text()
        try:
            self.machine = MachinePrivate.parse(self.state.machine_key)
            self.disco = DiscoPrivate.parse(self.state.disco_key)
            msgspec.json.decode(self.state.prefs, type=Prefs)
            for text in (self.state.node_key, self.state.next_node_key):
                if text:
                    NodePrivate.parse(text)
        except (WireError, *BAD_JSON) as error:
            raise self._damaged(str(error)) from error
        if fresh:
            self._write(self.state)

    @property
    def ephemeral(self) -> bool:
        """Whether nothing outlives the process."""
        return self._path is None

    @property
    def node_key(self) -> NodePrivate | None:
        """The key the control server knows us by."""
        return NodePrivate.parse(self.state.node_key) if self.state.node_key else None

    def next_node_key(self, *, fresh: bool) -> NodePrivate:
        """The key of a login under way, kept before it is used; `fresh`: not one that was tried before."""
        if fresh or not self.state.next_node_key:
            self._put(next_node_key=NodePrivate.from_entropy(secrets.token_bytes(32)).text())
        return NodePrivate.parse(self.state.next_node_key)

    def logged_in(self, key: NodePrivate, user: User, login: Login) -> None:
        """The server took `key`."""
        text = key.text()
        waiting = self.state.next_node_key
        self._put(node_key=text, next_node_key="" if waiting == text else waiting, user=user, login=login)

    def keep_prefs(self, prefs: Prefs, *, forget: bool = False) -> None:
        """Keep the preferences, and `forget` the node in the same breath (its machine stays). Raises SystemFault."""
        members: dict[str, Any] = {"prefs": msgspec.Raw(msgspec.json.encode(prefs))}
        self._put(**members, **(_FORGOTTEN if forget else {}))
        if forget and self._path is not None:
            with contextlib.suppress(OSError):  # it is of a node that is no more: never read again
                self._path.with_name(NETMAP_FILE).unlink(missing_ok=True)

    def forget_for_now(self) -> None:
        """Forget the node until the next start: what the disk did not take."""
        self.state = replace(self.state, **_FORGOTTEN)

    def _put(self, **members: Any) -> None:
        """Change members, on disk first; what is so already costs no write (a full disk stops no reconnect)."""
        changed = replace(self.state, **members)
        if changed != self.state:
            self._write(changed)
            self.state = changed

    def _write(self, state: State) -> None:
        if self._path is not None:
            write_secret(self._path, msgspec.json.format(msgspec.json.encode(state), indent=1))

    def save_netmap(self, netmap: Netmap) -> None:
        """Keep the netmap; raises SystemFault."""
        if self._path is not None and self.state.node_key:
            saved = SavedNetmap(format=FORMAT, node_key=netmap.self_node.key, netmap=netmap)
            write_secret(self._path.with_name(NETMAP_FILE), msgspec.json.encode(saved))

    def load_netmap(self) -> Netmap | None:
        """The netmap kept for the present node key, None when there is none that can be used."""
        key = self.node_key
        if self._path is None or key is None:
            return None
        try:
            saved = msgspec.json.decode(self._path.with_name(NETMAP_FILE).read_bytes(), type=SavedNetmap)
        except (OSError, *BAD_JSON):
            return None  # it is a convenience: the server gives another
        return saved.netmap if saved.format == FORMAT and saved.node_key == str(key.public()) else None

    def _clock_went_back(self, now_s: float) -> bool:
        """Whether the clock is behind what we wrote with it."""
        if self._path is None:
            return False
        for path in (self._path, self._path.with_name(NETMAP_FILE)):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime > now_s + 1.0:
                    return True
        return False

    def _load(self) -> State:
        if self._path is None:
            return State()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            state = msgspec.json.decode(self._path.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except PermissionError as error:
            raise NotPermittedError(f"The state file {self._path} may not be read.", remedy="Run as root.") from error
        except OSError as error:
            raise SystemFault(f"The state file {self._path} cannot be read: {error.strerror}.") from error
        except BAD_JSON as error:
            raise self._damaged(str(error)) from error
        if state.format > FORMAT:
            raise ConfigError(
                f"The state file {self._path} was written by a newer Buri (format {state.format}).",
                remedy="Install that version again, or give another --statedir.",
            )
        return state

    def _damaged(self, why: str) -> ConfigError:
        return ConfigError(
            f"The state file {self._path} is damaged ({why}).",
            remedy="Restore it, or move it away to join anew.",
        )
