"""Registration (upstream: tailscale `tailcfg.RegisterRequest`; wire reference 1a, 1b)."""

from __future__ import annotations

from buri.core.keys import MachinePublic, NodePublic
from buri.wire.tailcfg.base import ZERO_TIME, Wire, go
from buri.wire.tailcfg.node import Hostinfo, Login, User

ZERO_NODE_KEY = str(NodePublic.zero())
ZERO_MACHINE_KEY = str(MachinePublic.zero())
LOGOUT_EXPIRY = "1970-01-01T00:02:03Z"  # Unix time 123: "log me out"


class OverTLSPublicKeyResponse(Wire):
    """The answer of GET /key."""

    legacy_public_key: str = go("legacyPublicKey", ZERO_MACHINE_KEY)
    public_key: str = go("publicKey", ZERO_MACHINE_KEY)


class EarlyNoise(Wire):
    node_key_challenge: str = go("nodeKeyChallenge", "")


class RegisterAuth(Wire):
    auth_key: str = go("AuthKey", "")


class RegisterRequest(Wire):
    version: int = go("Version", 0)
    node_key: str = go("NodeKey", ZERO_NODE_KEY)
    old_node_key: str = go("OldNodeKey", ZERO_NODE_KEY)
    nl_key: str = go("NLKey", "")
    auth: RegisterAuth | None = go("Auth", None)
    expiry: str = go("Expiry", ZERO_TIME)
    followup: str = go("Followup", "")
    hostinfo: Hostinfo | None = go("Hostinfo", None)
    ephemeral: bool = go("Ephemeral", False)
    timestamp: str | None = go("Timestamp", None)
    tailnet: str = go("Tailnet", "")


class RegisterResponse(Wire):
    user: User = go("User", factory=User)
    login: Login = go("Login", factory=Login)
    node_key_expired: bool = go("NodeKeyExpired", False)
    machine_authorized: bool = go("MachineAuthorized", False)
    auth_url: str = go("AuthURL", "")
    node_key_signature: str | None = go("NodeKeySignature", None)
    error: str = go("Error", "")
