"""What `buri` and `tailscale` have in common: the same words ask a node of either kind."""

from __future__ import annotations

from abc import ABC, abstractmethod


class NodeCommands(ABC):
    """The verbs whose words are the same."""

    @abstractmethod
    def cli(self, *words: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run the node's command line; returns its output (stdout, then stderr)."""

    def up(self, url: str, auth_key: str, *more: str) -> None:
        """Log in with an auth key and wait for Running."""
        self.cli("up", f"--login-server={url}", f"--auth-key={auth_key}", "--timeout=40s", *more)

    def address(self, family: int = 4) -> str:
        """The node's own tailnet address."""
        return self.cli("ip", f"-{family}").strip()

    def ping(self, address: str, *, until_direct: bool = True, count: int = 10, check: bool = True) -> list[str]:
        """`ping`; returns its lines."""
        until = f"--until-direct={'true' if until_direct else 'false'}"
        return self.cli("ping", f"-c={count}", "--timeout=3s", until, address, check=check, timeout_s=60).splitlines()
