"""The agent behind LocalAPI: each call of `localapi.backend.Backend` in the agent's own verbs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import msgspec

from buri.core.addresses import IPAddress
from buri.core.errors import ConfigError, StateError
from buri.machine.controlclient import Server
from buri.node import hostinfo, statusview
from buri.node.agent import Agent
from buri.node.notices import (
    BrowseToURL,
    Failed,
    HealthChanged,
    LoginFinished,
    NetmapNews,
    Notice,
    PrefsChanged,
    StateChanged,
)
from buri.node.peercaps import peer_capabilities
from buri.node.pingback import INNER_PINGS, ping_inside, ping_peer
from buri.node.reconciler import addresses_of
from buri.wire.localapi import (
    Empty,
    HealthState,
    LoginProfile,
    MaskedPrefs,
    NetcheckReport,
    NetworkMap,
    NetworkProfile,
    Notify,
    NotifyMask,
    Options,
    Persist,
    PingResult,
    Prefs,
    Status,
    UnhealthyState,
    WhoIsResponse,
)
from buri.wire.tailcfg.derpmap import DERPMap
from buri.wire.tailcfg.node import UserProfile

WATCHER_LIMIT = 1024  # notices a watcher may leave unread; then it is cut off
MAX_HOSTNAME = 63
PING_PATIENCE_S = 10.0  # for callers who do not say theirs: those of Tailscale give up after 5 s


class AgentBackend:
    """Implements `buri.node.localapi.backend.Backend`; `on_shutdown` ends the daemon."""

    def __init__(self, agent: Agent, on_shutdown: Callable[[], None]) -> None:
        self._agent = agent
        self._on_shutdown = on_shutdown
        self._auth_key = ""
        self._auth_key_used = False

    # ---- state and preferences ----------------------------------------------------------------------------------

    async def status(self, *, peers: bool) -> Status:
        """The state now."""
        return statusview.status(self._agent, peers=peers)

    async def prefs(self) -> Prefs:
        """The preferences now, with who is logged in."""
        agent = self._agent
        if agent.node_key is None:
            return msgspec.structs.replace(agent.prefs, config=None)
        node = agent.self_node
        persist = Persist(user_profile=self._user(), node_id=node.stable_id if node is not None else "")
        return msgspec.structs.replace(agent.prefs, config=persist)

    async def edit_prefs(self, edit: MaskedPrefs) -> Prefs:
        """Change what the edit sets."""
        prefs = edit.apply_to(self._agent.prefs)
        await self.check_prefs(prefs)
        self._agent.set_prefs(prefs)
        if edit.want_running_set and prefs.want_running:
            self._agent.repeat_state()
        return await self.prefs()

    async def check_prefs(self, prefs: Prefs) -> None:
        """Refuse what could not be used, or what this version would silently not do."""
        if prefs.control_url:
            Server.parse(prefs.control_url)
        name = prefs.hostname
        if len(name) > MAX_HOSTNAME or name.strip() != name or "." in name:
            raise ConfigError(f"{name!r} is not a host name.", remedy="Use one label of at most 63 characters.")
        for wanted, what in (
            (prefs.exit_node_id or prefs.exit_node_ip or prefs.auto_exit_node, "use an exit node"),
            (prefs.advertise_routes, "advertise routes"),
            (prefs.run_ssh, "serve SSH"),
            (prefs.run_web_client, "serve a web client"),
            (prefs.relay_server_port is not None, "be a peer relay"),
        ):
            if wanted:
                raise ConfigError(f"This version of Buri cannot {what} yet.", remedy="Leave that setting out.")

    async def start(self, options: Options) -> None:
        """Take preferences whole, wish to run, log in with the key if that is needed."""
        agent = self._agent
        prefs = options.update_prefs or agent.prefs
        prefs = msgspec.structs.replace(prefs, want_running=True, logged_out=False, config=None)
        await self.check_prefs(prefs)
        agent.set_prefs(prefs)
        self._auth_key, self._auth_key_used = options.auth_key, False
        if options.auth_key and (agent.node_key is None or agent.is_expired):
            self._auth_key_used = True
            agent.log_in(auth_key=options.auth_key)
        agent.repeat_state()

    async def login_interactive(self) -> None:
        """A login by a person, or the login that `start` was given a key for."""
        if not self._auth_key:
            self._agent.show_login_page()
        elif not self._auth_key_used:
            self._auth_key_used = True
            self._agent.log_in(auth_key=self._auth_key, fresh=self._agent.node_key is not None)

    async def logout(self) -> None:
        """Have the server forget this node."""
        await self._agent.log_out()

    async def reset_auth(self) -> None:
        """Forget keys and login without asking the server."""
        self._agent.forget()

    async def profile(self) -> LoginProfile:
        """The one account."""
        agent = self._agent
        if agent.node_key is None:
            return LoginProfile()
        node, netmap, user = agent.self_node, agent.netmap, self._user()
        return LoginProfile(
            id="0000",
            name=agent.prefs.profile_name or user.login_name,
            network_profile=NetworkProfile(
                magic_dns_name="" if netmap is None else statusview.magic_dns_suffix(netmap),
                domain_name="" if netmap is None else netmap.domain,
            ),
            key="profile-0000",
            user_profile=user,
            node_id=node.stable_id if node is not None else "",
            control_url=agent.prefs.control_url,
        )

    def _user(self) -> UserProfile:
        state, netmap = self._agent.store.state, self._agent.netmap
        if netmap is not None and netmap.self_node.user in netmap.users:
            return netmap.users[netmap.self_node.user]
        user, login = state.user, state.login
        return UserProfile(
            id=user.id if user is not None else 0,
            login_name=login.login_name if login is not None else "",
            display_name=(user.display_name if user is not None else "")
            or (login.display_name if login is not None else ""),
        )

    # ---- the tailnet --------------------------------------------------------------------------------------------

    async def ping(self, address: IPAddress, kind: str, size_bytes: int, patience_s: float | None = None) -> PingResult:
        """One ping; what went wrong is in the result."""
        agent = self._agent
        result = PingResult(ip=str(address), node_ip=str(address))
        node = agent.self_node
        if node is not None and address in addresses_of(node):
            result.is_local_ip = True
            result.err = f"{address} is this node's own address"
            return result
        if kind in INNER_PINGS:
            result, lost = await ping_inside(agent, address, PingResult, kind, patience_s)
        elif kind == "disco":
            result, lost = await ping_peer(
                agent, address, PingResult, size_bytes=size_bytes, patience_s=patience_s or PING_PATIENCE_S
            )
        else:
            result.err, lost = f"this version of Buri has no {kind} pings", False
        if lost and patience_s is None:
            await asyncio.Event().wait()  # as upstream's: an error would end the caller's series; its patience decides
        result.lost = lost
        return result

    async def whois(self, query: str, protocol: str) -> WhoIsResponse | None:
        """Whose address this is."""
        netmap = self._agent.netmap
        node = statusview.find_node(netmap, query) if netmap is not None else None
        if netmap is None or node is None:
            return None
        addresses = addresses_of(node)
        asked = statusview.asked_address(query)
        source = asked if asked is not None else next(iter(addresses), None)
        granted = (
            peer_capabilities(netmap.filter_rules(), source, addresses_of(netmap.self_node))
            if source is not None
            else {}
        )
        return WhoIsResponse(node=node, user_profile=statusview.user_of(netmap, node), cap_map=granted or None)

    async def derp_map(self) -> DERPMap | None:
        """The relays known now."""
        netmap = self._agent.netmap
        return netmap.derp_map if netmap is not None else None

    async def netcheck(self) -> NetcheckReport:
        """Measure the network now."""
        report = await self._agent.underlay.measure()
        home = self._agent.underlay.relays.home
        return statusview.netcheck_report(report, home=home, os_has_ipv6=hostinfo.os_has_ipv6())

    async def netmap(self) -> NetworkMap | None:
        """The netmap now."""
        netmap = self._agent.netmap
        if netmap is None:
            return None
        return NetworkMap(
            self_node=netmap.self_node,
            node_key=netmap.self_node.key,
            peers=[netmap.peers[key] for key in sorted(netmap.peers)],
            dns=netmap.dns,
            derp_map=netmap.derp_map,
            domain=netmap.domain,
            user_profiles=netmap.users,
        )

    # ---- the bus ------------------------------------------------------------------------------------------------

    @contextmanager
    def watch(self, mask: NotifyMask) -> Iterator[AsyncIterator[Notify]]:
        """The bus from entering to leaving."""
        queue: asyncio.Queue[Notice] = asyncio.Queue(WATCHER_LIMIT)

        def hear(notice: Notice) -> None:
            if not queue.full():  # a full one is cut off when it reads on
                queue.put_nowait(notice)

        stop = self._agent.subscribe(hear)
        try:
            yield self._notifies(queue, self._first(mask), mask)
        finally:
            stop()

    async def _notifies(
        self, queue: asyncio.Queue[Notice], first: Notify | None, mask: NotifyMask
    ) -> AsyncIterator[Notify]:
        if first is not None:
            yield first
        while not queue.full():
            notify = await self._notify(await queue.get(), mask)
            if notify is not None:
                yield notify

    def _first(self, mask: NotifyMask) -> Notify | None:
        agent = self._agent
        notify = Notify(version=hostinfo.IPN_VERSION)
        if mask & NotifyMask.INITIAL_STATE:
            notify.state = agent.state
            if agent.auth_url:
                notify.browse_to_url = agent.auth_url
        if mask & NotifyMask.INITIAL_PREFS:
            notify.prefs = agent.prefs
        if mask & NotifyMask.INITIAL_HEALTH:
            notify.health = self._health()
        if mask & NotifyMask.INITIAL_STATUS:
            notify.initial_status = statusview.status(agent)
        if mask & NotifyMask.INITIAL_NETMAP and agent.netmap is not None:
            notify.self_change = agent.netmap.self_node
        return notify if notify != Notify(version=hostinfo.IPN_VERSION) else None

    async def _notify(self, notice: Notice, mask: NotifyMask) -> Notify | None:
        match notice:
            case StateChanged(state=state):
                return Notify(state=state)
            case PrefsChanged():
                return Notify(prefs=await self.prefs())
            case BrowseToURL(url=url):
                return Notify(browse_to_url=url)
            case LoginFinished():
                return Notify(login_finished=Empty())
            case Failed(message=message):
                return Notify(err_message=message)
            case HealthChanged():
                return Notify(health=self._health())
            case NetmapNews(netmap=netmap, change=change):
                notify = Notify(self_change=netmap.self_node if change.self_node else None)
                if mask & NotifyMask.PEER_CHANGES:
                    changed = change.upserted | change.patched
                    notify.peers_changed = [netmap.peers[key] for key in changed if key in netmap.peers] or None
                    notify.peers_removed = [node.id for node in change.removed] or None
                    notify.user_profiles = netmap.users if change.users else None
                return notify if notify != Notify() else None

    def _health(self) -> HealthState:
        warnings = {
            f"buri-{number}": UnhealthyState(warnable_code=f"buri-{number}", title=text, text=text)
            for number, text in enumerate(statusview.health(self._agent))
        }
        return HealthState(warnings=warnings or None)

    # ---- looking inside -----------------------------------------------------------------------------------------

    async def metrics(self) -> str:
        """The engine's and the path machines' counters as Prometheus text."""
        underlay = self._agent.underlay
        counters = {f"burid_engine_{name}_total": value for name, value in underlay.engine.stats().counters.items()}
        counters |= {f"burid_paths_{name}_total": value for name, value in underlay.paths.counters.items()}
        return "".join(f"# TYPE {name} counter\n{name} {value}\n" for name, value in sorted(counters.items()))

    async def debug(self, action: str) -> str:
        """Do one thing by hand."""
        underlay = self._agent.underlay
        match action:
            case "restun" | "pick-new-derp":
                await underlay.measure()
            case "rebind":
                underlay.network_changed(self._agent.network)
            case "break-derp-conns":
                underlay.reopen_relays()
            case _:
                raise StateError(f"There is no debug action {action!r}.")
        return ""

    async def shutdown(self) -> None:
        """Have the daemon end."""
        asyncio.get_running_loop().call_soon(self._on_shutdown)
