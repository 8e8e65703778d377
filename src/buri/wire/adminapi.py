"""The admin socket's language: one line of JSON asks, one line answers. Server and `buri admin` share these structs.

A request is one of the tagged structs of `Request` (`{"verb": "users.create", "name": "alice"}`); the answer is a
`Reply`: either `result`, whose shape each request names in its docstring, or `error`. Times are RFC 3339 text, "" =
never. A connection may carry any number of requests, one after the other.
"""

from __future__ import annotations

import msgspec

MAX_LINE_BYTES = 1 << 23
MAX_REPLY_BYTES = 1 << 28
SOCKET_NAME = "admin.sock"


class _Verb(msgspec.Struct, tag_field="verb", forbid_unknown_fields=True, kw_only=True):
    pass


class ListUsers(_Verb, tag="users.list"):
    """→ list[UserRow]"""


class CreateUser(_Verb, tag="users.create"):
    """→ UserRow"""

    name: str
    display_name: str = ""


class RenameUser(_Verb, tag="users.rename"):
    """→ UserRow"""

    user: str
    name: str


class DeleteUser(_Verb, tag="users.delete"):
    """→ UserRow, as it was"""

    user: str


class ListNodes(_Verb, tag="nodes.list"):
    """→ list[NodeRow]; `user` "" = of everybody."""

    user: str = ""


class ShowNode(_Verb, tag="nodes.show"):
    """→ NodeRow"""

    node: str


class ExpireNode(_Verb, tag="nodes.expire"):
    """→ NodeRow; the key ends `after_s` seconds from now (0 = now), or never."""

    node: str
    after_s: float = 0.0
    never: bool = False


class NodeExpiry(_Verb, tag="nodes.expiry"):
    """→ NodeRow; `extend_s` > 0: the key lasts so much longer, whatever `enabled`; else it may expire again, or never does."""

    node: str
    enabled: bool = True
    extend_s: float = 0.0


class DeleteNode(_Verb, tag="nodes.delete"):
    """→ NodeRow, as it was"""

    node: str


class RenameNode(_Verb, tag="nodes.rename"):
    """→ NodeRow; an empty name lets the host name decide again."""

    node: str
    name: str


class ApproveNode(_Verb, tag="nodes.approve"):
    """→ NodeRow"""

    code: str
    user: str


class RejectNode(_Verb, tag="nodes.reject"):
    """→ null"""

    code: str


class ListPending(_Verb, tag="nodes.pending"):
    """→ list[PendingRow]"""


class CreateAuthKey(_Verb, tag="preauthkeys.create"):
    """→ NewAuthKey; `lifetime_s` 0 = for ever."""

    user: str = ""
    tags: list[str] = []
    reusable: bool = False
    ephemeral: bool = False
    lifetime_s: float = 3600.0


class ListAuthKeys(_Verb, tag="preauthkeys.list"):
    """→ list[AuthKeyRow]"""


class RevokeAuthKey(_Verb, tag="preauthkeys.revoke"):
    """→ AuthKeyRow; `key` is an id, a prefix, or the key."""

    key: str


class GrantRole(_Verb, tag="users.role"):
    """→ UserRow"""

    user: str
    role: str


class InviteUser(_Verb, tag="users.invite"):
    """→ NewLink; a user of this name (made where there is none) and a link that lets them in the first time."""

    name: str
    display_name: str = ""
    role: str = ""


class MakePasswordLink(_Verb, tag="users.password-link"):
    """→ NewLink; whoever follows it sets the user's password."""

    user: str


class TagNode(_Verb, tag="nodes.tag"):
    """→ NodeRow; the node belongs to these tags from now on, and to no person."""

    node: str
    tags: list[str]


class GetPolicy(_Verb, tag="policy.get"):
    """→ PolicyText; `version` 0 = the one in force."""

    version: int = 0


class ListPolicies(_Verb, tag="policy.history"):
    """→ list[PolicyRow], oldest first; the last is in force."""


class SetPolicy(_Verb, tag="policy.set"):
    """→ PolicyText; `if_match` is the etag of the policy that the edit began with, "" = whatever is there."""

    text: str
    author: str = ""
    if_match: str = ""


class CheckPolicy(_Verb, tag="policy.check"):
    """→ PolicySummary; says whether `text` could be set, `None`: whether the tests of the one in force still pass."""

    text: str | None = None


class ExplainPolicy(_Verb, tag="policy.explain"):
    """→ ExplanationRow; `dst` is a node or an address, `port` 0 = any, `protocol` "" = TCP, UDP, ICMP."""

    src: str
    dst: str
    port: int = 0
    protocol: str = ""


class DiffPolicy(_Verb, tag="policy.diff"):
    """→ list[PairRow]: what `text`, were it in force, would give and take."""

    text: str


PolicyRequest = GetPolicy | ListPolicies | SetPolicy | CheckPolicy | ExplainPolicy | DiffPolicy
Request = (
    ListUsers
    | CreateUser
    | RenameUser
    | DeleteUser
    | ListNodes
    | ShowNode
    | ExpireNode
    | NodeExpiry
    | DeleteNode
    | RenameNode
    | ApproveNode
    | RejectNode
    | ListPending
    | CreateAuthKey
    | ListAuthKeys
    | RevokeAuthKey
    | GrantRole
    | InviteUser
    | MakePasswordLink
    | TagNode
    | PolicyRequest
)


class UserRow(msgspec.Struct, kw_only=True):
    id: int
    name: str
    display_name: str
    created: str
    nodes: int
    role: str = "member"
    email: str = ""
    can_sign_in: bool = False


class NewLink(msgspec.Struct, kw_only=True):
    """A link that works once. `url` is a secret."""

    user: UserRow
    url: str
    lifetime_s: float


class NodeRow(msgspec.Struct, kw_only=True):
    """A node; `user` is "" for a tagged one."""

    id: int
    stable_id: str
    name: str
    fqdn: str
    hostname: str
    os: str
    version: str
    user: str
    tags: list[str]
    addresses: list[str]
    endpoints: list[str]
    home_derp: int
    online: bool
    last_seen: str
    created: str
    expiry: str
    expired: bool
    ephemeral: bool
    authorized: bool
    machine_key: str
    node_key: str
    disco_key: str


class PendingRow(msgspec.Struct, kw_only=True):
    code: str
    hostname: str
    os: str
    machine_key: str


class AuthKeyRow(msgspec.Struct, kw_only=True):
    """A pre-auth key without its secret. `state` is valid, used, expired or revoked."""

    id: int
    prefix: str
    user: str
    tags: list[str]
    reusable: bool
    ephemeral: bool
    created: str
    expiry: str
    used: bool
    state: str


class NewAuthKey(AuthKeyRow, kw_only=True):
    """With the secret, this once."""

    key: str


class PolicyRow(msgspec.Struct, kw_only=True):
    """One version of the policy. `version` 0: the default, which nobody set."""

    version: int
    etag: str
    author: str
    created: str


class PolicyText(PolicyRow, kw_only=True):
    """With its text; `file` is where the server takes it from, "" = nowhere but `policy.set`."""

    text: str
    file: str = ""


class PolicySummary(msgspec.Struct, kw_only=True):
    """What a sound policy holds; `rules` -1: it has none, and so allows everything."""

    rules: int
    ssh_rules: int
    tests: int
    nodes: int


class RulePlace(msgspec.Struct, kw_only=True):
    """A rule and where it stands; `line` 0: the policy has no rules."""

    name: str
    line: int
    text: str


class ExplanationRow(msgspec.Struct, kw_only=True):
    """`sentence` says it all for a person. Denied: `nearest` is the rule that almost allows it, `lack` what it lacks."""

    allowed: bool
    sentence: str
    rules: list[RulePlace]
    nearest: RulePlace | None
    lack: str
    notes: list[str]


class PairRow(msgspec.Struct, kw_only=True):
    """What one node gains and loses towards another, as "tcp 22,80-443"."""

    src: str
    dst: str
    gained: str
    lost: str


class Fault(msgspec.Struct, kw_only=True):
    """What is wrong at one place of a text."""

    line: int
    column: int
    message: str


class Failure(msgspec.Struct, omit_defaults=True):
    """An error of core.errors in transit; `faults` when it is about a text."""

    message: str
    remedy: str
    exit_code: int
    faults: list[Fault] = []


class Reply(msgspec.Struct, omit_defaults=True):
    """`result` holds raw JSON of the shape the request names; `error` set = refused."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


request_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
reply_decoder = msgspec.json.Decoder(Reply)
