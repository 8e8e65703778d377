"""The agent: one node, from its kept state to its running tunnel. It owns every other part; nobody owns it but a role.

Facts come in from the control client, the underlay and the network monitor; the agent keeps the few things that are its
own (preferences, state, the login under way) and, after each fact, makes engine, router and report follow (`_settle`).
It never blocks the loop for the network, and goes on with the last netmap when the control server is away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from buri.core.errors import BuriError, ConfigError, SystemFault
from buri.core.keys import MachinePrivate, MachinePublic, NodePrivate, NodePublic
from buri.engine import port
from buri.machine.controlcalls import CAPABILITY_VERSION, Report
from buri.machine.controlclient import ControlClient, Server
from buri.machine.controlevents import (
    BrowserURL,
    ControlEvent,
    ControlState,
    LoggedIn,
    LoggedOut,
    LoginFailed,
    LoginURL,
    NetmapChanged,
    NewKeyWanted,
    PingAsked,
    Trouble,
)
from buri.machine.mapdelta import Change, Netmap, difference
from buri.machine.noiseclient import NoiseClient
from buri.node import hostinfo
from buri.node.controllink import ControlLink
from buri.node.keywatch import KeyWatch
from buri.node.names import NameService
from buri.node.netmon.linux import NetworkMonitor, NetworkState
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
from buri.node.pingback import answer_ping
from buri.node.reconciler import Choices, Reconciler, is_expired
from buri.node.router import Router, RouterConfig
from buri.node.router.linux import MARK
from buri.node.serverclock import ServerClock
from buri.node.states import Facts, next_state
from buri.node.statestore import StateStore
from buri.node.underlay import Underlay
from buri.wire.localapi import BackendState, Prefs
from buri.wire.tailcfg.node import Login, NetInfo, Node, User

log = logging.getLogger("buri.node")

NETMAP_SAVE_DELAY_S = 1.0
READ_AT_ONCE = 256  # peers of a netmap: some milliseconds of the loop
NETMAP_SAVE_SPACING_S = 10.0  # a busy tailnet changes all the time, and the disk need not


class Agent:
    """See the module. Made by `start`; every method is to be called within the loop."""

    def __init__(
        self, store: StateStore, engine: port.Engine, router: Router, *, interface: str, fixed_port: bool
    ) -> None:
        self.store = store
        self.prefs = msgspec.json.decode(store.state.prefs, type=Prefs)
        self.interface = interface
        self.state = BackendState.NO_STATE
        self.netmap: Netmap | None = None
        self.auth_url = ""
        self.trouble = ""
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._router = router
        self._router_config: RouterConfig | None = None
        self._router_wanted: RouterConfig | None = None
        self._reconciler = Reconciler()
        self._settled: tuple[Netmap | None, Choices, float] | None = None
        self._live_peer = False
        self._lost = False  # the server answered that it does not know our key, or that it has ended
        self._closed = False
        self._settling = False
        self._listeners: list[Callable[[Notice], None]] = []
        self._control: ControlLink | None = None
        self._logout_done: asyncio.Future[str] | None = None
        self._net_info: NetInfo | None = None
        self._save: asyncio.TimerHandle | None = None
        self._saved_at = -math.inf
        self.clock = ServerClock()
        self.keys = KeyWatch(self._settle, lambda: self._tell(HealthChanged()))
        self._tasks: set[asyncio.Task[None]] = set()
        self.names = NameService(interface, lambda: self._tell(HealthChanged()))
        self._monitor = NetworkMonitor(interface, self._network_changed)
        self.underlay = Underlay(engine, self, self._monitor.state, fixed_port=fixed_port)
        self._key: NodePrivate | None = None

    # ---- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up what was kept: with a node key and the wish to run, connect and use the last netmap meanwhile."""
        self._use_key(self.store.node_key)
        if self._key is not None and self.prefs.want_running:
            self._take_kept_netmap()
            self._link().client.connect(self._now())
            self._link().pump()
        self._settle()

    async def close(self) -> None:
        """Stop: nothing of ours stays in the system; the node stays registered."""
        if self._closed:
            return
        self._closed = True
        if self.store.ephemeral and self.control_connected:
            await self.log_out()
        if self._control is not None:
            await self._control.close()
        self.keys.close()
        await self.names.close()
        if self._save is not None:
            self._save.cancel()
            await self._save_netmap()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._monitor.close()
        try:
            self._router.remove()
        except SystemFault as error:
            log.warning("%s", error)
        self._router.close()
        await self.underlay.close()

    def subscribe(self, listener: Callable[[Notice], None]) -> Callable[[], None]:
        """Hear every notice from now on; call what is returned to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # ---- verbs --------------------------------------------------------------------------------------------------

    def set_prefs(self, prefs: Prefs) -> None:
        """Take new preferences whole, keep them, and follow them."""
        old = self.prefs
        leaving = prefs.control_url != old.control_url
        if leaving and prefs.control_url:
            Server.parse(prefs.control_url)
        self._keep_prefs(prefs, forget=leaving)
        if leaving:
            self._leave_server()
        if old.want_running != prefs.want_running and self._key is not None:
            link = self._link()
            if prefs.want_running:
                self._take_kept_netmap()
                link.client.connect(self._now())
            else:
                link.client.disconnect(self._now())
                self._live_peer = False
            link.pump()
        self._settle()

    def log_in(self, *, auth_key: str = "", fresh: bool = False) -> None:
        """Register with the control server of the preferences; a page to open comes as a notice if one is needed.

        `fresh` (or an expired key): with a new node key, while the old one stays in use until the server took the new.
        """
        if not self.prefs.control_url:
            raise ConfigError("No control server is set.", remedy="Give --login-server=URL.")
        renew = fresh or self.is_expired or self._key is None
        key = self.store.next_node_key(fresh=False) if renew or self._key is None else self._key
        old = self._key.public() if renew and self._key is not None else None
        link = self._link()
        self.auth_url = ""
        link.client.login(key, self._now(), old=old, auth_key=auth_key, ephemeral=self.store.ephemeral)
        link.pump()
        self._settle()

    def show_login_page(self) -> None:
        """A person wants to log in: say the page again, or begin a login."""
        if self.auth_url:
            self._tell(BrowseToURL(self.auth_url))
        else:
            self.log_in(fresh=self._key is not None)

    async def log_out(self) -> None:
        """Have the server forget this node, and forget its keys; what the server could not be told is logged."""
        if self._key is None:
            self._forget()
            return
        done = self._logout_done
        if done is None or done.done():
            done = self._logout_done = asyncio.get_running_loop().create_future()
            link = self._link()
            link.client.logout(self._now())
            link.pump()
        error = await asyncio.shield(done)  # another caller may wait for the same logout
        if error:
            log.warning("The control server did not take the logout: %s", error)

    def forget(self) -> None:
        """Forget keys and login without a word to the server."""
        self._drop_control()
        self._forget()
        self._logout_ended("the login was forgotten meanwhile")

    def repeat_state(self) -> None:
        """Say the state again: `up` waits for it even when nothing changed (wire reference, trap 11)."""
        self._tell(StateChanged(self.state))

    # ---- control ------------------------------------------------------------------------------------------------

    def _link(self) -> ControlLink:
        server = Server.parse(self.prefs.control_url)
        if self._control is not None and self._control.client.server == server:
            return self._control
        if self._control is not None:
            self._control.client.disconnect(self._now())
            self._control.pump()
        client = ControlClient(server, self._noise, self.store.disco.public(), self._key, secrets.SystemRandom())
        self._control = ControlLink(client, self._hear_control, mark=MARK)
        client.set_report(self._report(), self._now())
        return self._control

    def _noise(self, server: MachinePublic, entropy: bytes) -> NoiseClient:
        return NoiseClient(self.store.machine, server, CAPABILITY_VERSION, MachinePrivate.from_entropy(entropy))

    def _hear_control(self, event: ControlEvent) -> None:
        match event:
            case LoginURL(url=url, lost=lost):
                self.auth_url = url
                self._lost = self._lost or lost
                self._tell(BrowseToURL(url))
            case LoggedIn(key=key, user=user, login=login):
                self.auth_url = ""
                self._lost = False
                if not self._keep_login(key, user, login):
                    return
                self._use_key(key)
                if self.prefs.logged_out or not self.prefs.want_running:
                    self.set_prefs(msgspec.structs.replace(self.prefs, logged_out=False, want_running=True))
                self._tell(LoginFinished())
                log.info("Registered with %s.", self.prefs.control_url)
            case LoginFailed(message=message):
                self.auth_url = ""
                log.warning("The login failed: %s", message)
                self._tell(Failed(message))
            case NewKeyWanted():
                self._lost = True  # whatever the kept netmap says
                self._take_new_key()
            case LoggedOut(error=error):
                self._forget()
                self._logout_ended(error)
            case NetmapChanged(netmap=netmap, change=change):
                if self._control is not None:
                    self.clock.take(self._control.client.clock_offset_s)
                self._take_netmap(netmap, change, keep=True)
            case PingAsked(request=request):
                self._spawn(answer_ping(self, request))
            case BrowserURL(url=url):
                self._tell(BrowseToURL(url))
            case Trouble(message=message):
                self.trouble = message
                if message:
                    log.warning("%s", message)
                    self._save_at_once()
                self._tell(HealthChanged())
        if isinstance(event, NetmapChanged):
            self._settle_soon()
        else:
            self._settle()

    def _keep_login(self, key: NodePrivate, user: User, login: Login) -> bool:
        """Keep what the server said; without its key on disk a node would be another one after each restart."""
        try:
            self.store.logged_in(key, user, login)
        except SystemFault as error:
            if key == self._key:
                log.warning("The login could not be kept: %s", error)
                return True
            log.error("The login is given up: %s", error)
            self._drop_control()
            self._tell(Failed(str(error)))
            self._settle()
            return False
        return True

    def _take_new_key(self) -> None:
        old = self._key.public() if self._key is not None else None
        try:
            key = self.store.next_node_key(fresh=True)
        except SystemFault as error:
            log.error("A new key could not be kept: %s", error)
            self._tell(Failed(str(error)))
            return
        self._link().client.login(key, self._now(), old=old, ephemeral=self.store.ephemeral)

    def _drop_control(self) -> None:
        if self._control is not None:
            self._control.client.disconnect(self._now())
            self._control.pump()
            self._control = None

    def _report(self) -> Report:
        prefs = self.prefs
        info = hostinfo.collect(
            hostname=prefs.hostname,
            tags=tuple(prefs.advertise_tags or ()),
            shields_up=prefs.shields_up,
            net_info=self._net_info,
        )
        return Report(info, tuple((found.address, int(found.type)) for found in self.underlay.endpoints))

    def _use_key(self, key: NodePrivate | None) -> None:
        if key is None or key == self._key:
            self._key = key
            return
        self._key = key
        self._reconciler.forget()
        self._settled = None
        self.underlay.order([port.SetPrivateKey(key), port.SetPeers(())], ())
        self.underlay.set_identity(key.public(), self.store.disco)

    def _leave_server(self) -> None:
        """Another control server is meant from now on: what this one gave is of no use there."""
        self._drop_control()
        self.clock = ServerClock()
        self._key = None
        self.netmap = None
        self._live_peer = False
        self.auth_url = self.trouble = ""
        self._lost = False
        self._logout_ended("another control server was chosen meanwhile")

    def _logout_ended(self, error: str) -> None:
        if self._logout_done is not None and not self._logout_done.done():
            self._logout_done.set_result(error)

    def _forget(self) -> None:
        out = msgspec.structs.replace(self.prefs, logged_out=True, want_running=False)
        try:
            self._keep_prefs(out, forget=True)
        except SystemFault as error:
            log.error("The logout holds until burid's next start: %s", error)
            self.store.forget_for_now()
            self.prefs = out
        self._key = None
        self.netmap = None
        self.auth_url = ""
        self._live_peer = self._lost = False
        self._settle()

    def _keep_prefs(self, prefs: Prefs, *, forget: bool = False) -> None:
        self.store.keep_prefs(prefs, forget=forget)
        self.prefs = prefs
        self._tell(PrefsChanged())

    # ---- the netmap ---------------------------------------------------------------------------------------------

    def _take_kept_netmap(self) -> None:
        """Until the server gives one, the last netmap serves."""
        kept = self.store.load_netmap() if self.netmap is None else None
        if kept is not None:
            self._take_netmap(kept, difference(None, kept), keep=False)

    def _take_netmap(self, netmap: Netmap, change: Change, *, keep: bool) -> None:
        self.netmap = netmap
        if change.derp_map:
            self.underlay.set_derp_map(netmap.derp_map)
        self._tell(NetmapNews(netmap, change))
        if keep and self._save is None:
            due = max(self._now() + NETMAP_SAVE_DELAY_S, self._saved_at + NETMAP_SAVE_SPACING_S)
            self._save = asyncio.get_running_loop().call_at(due, self._save_soon)

    def _save_at_once(self) -> None:
        """The server is gone: what it said last is what a restart must live on."""
        if self._save is not None:
            self._save.cancel()
            self._save_soon()

    def _save_soon(self) -> None:
        self._spawn(self._save_netmap())

    async def _save_netmap(self) -> None:
        self._save = None
        self._saved_at = self._now()
        netmap = self.netmap
        if netmap is None or self._key is None:
            return
        try:
            await asyncio.to_thread(self.store.save_netmap, netmap)
        except SystemFault as error:
            log.warning("The netmap could not be kept: %s", error)

    def server_wall_s(self) -> float:
        """The control server's clock, as far as it told us."""
        return self.clock.wall_s()

    @property
    def is_expired(self) -> bool:
        """Whether this node's key has expired, by the control server's clock."""
        node = self.self_node
        return node is not None and is_expired(node, self.server_wall_s())

    @property
    def network(self) -> NetworkState:
        """The host's own network now."""
        return self._monitor.state

    @property
    def self_node(self) -> Node | None:
        """This node as the netmap shows it."""
        return self.netmap.self_node if self.netmap is not None else None

    @property
    def node_key(self) -> NodePublic | None:
        """The key this node is known by, None while logged out."""
        return self._key.public() if self._key is not None else None

    @property
    def control(self) -> ControlLink | None:
        """The way to the control server, None before the first login."""
        return self._control

    @property
    def control_connected(self) -> bool:
        """Whether the control server is talking to us now."""
        return self._control is not None and self._control.client.state is ControlState.CONNECTED

    # ---- what follows -------------------------------------------------------------------------------------------

    def _settle_soon(self) -> None:
        """Settle once after everything that came in this turn of the loop."""
        if not self._settling and not self._closed:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        """Make state, engine, router and report follow the facts."""
        self._settling = False
        if self._closed:
            return
        self.underlay.set_control_connected(self.control_connected)
        self._settle_report()
        node = self.self_node
        facts = Facts(
            has_key=self._key is not None,
            wanted=self.prefs.want_running,
            has_netmap=node is not None and node.key == str(self.node_key),  # the old one may be of another identity
            expired=self.is_expired,
            lost=self._lost,
            authorized=node is not None and node.machine_authorized,
            relay_up=any(relay.connected for relay in self.underlay.relays.status()),
            live_peer=self._live_peer,
        )
        state = next_state(self.state, facts)
        carries = state in (BackendState.STARTING, BackendState.RUNNING)
        if (
            carries
            and self.netmap is not None
            and not self._reconciler.prepare(self.netmap, self._choices, READ_AT_ONCE)
        ):
            self._settle_soon()  # thousands of peers at once: others have their turn in between
            return
        try:
            self._settle_tables(self.netmap if carries else None)
            self._settle_router()
        except SystemFault as error:
            log.error("%s", error)
            self._tell(Failed(str(error)))
        if state is not self.state:
            log.info("%s", state.label if node is None else f"{state.label} ({', '.join(node.addresses or ())})")
            self.state = state
            self._tell(StateChanged(state))

    @property
    def _choices(self) -> Choices:
        return Choices(
            accept_routes=self.prefs.route_all,
            shields_up=self.prefs.shields_up,
            service_addresses=self.names.service_addresses if self.prefs.corp_dns else (),
        )

    def _settle_tables(self, netmap: Netmap | None) -> None:
        choices = self._choices
        wall_s = self.server_wall_s()
        done = self._settled
        if done is not None and done[0] is netmap and done[1] == choices and wall_s < done[2]:
            self._watch_keys(done[2], wall_s)
            return
        tables = self._reconciler.reconcile(netmap, choices, wall_s)
        self.underlay.order(tables.orders, tables.paths)
        self._watch_keys(tables.next_expiry_s or math.inf, wall_s)
        if self._router_config is not None or netmap is not None:
            self._router_wanted = tables.router
        self._settled = (netmap, choices, tables.next_expiry_s or math.inf)

    def _watch_keys(self, peers_s: float, wall_s: float) -> None:
        self.keys.arm(self.self_node, peers_s - wall_s if peers_s < math.inf else None, wall_s)

    def _settle_router(self) -> None:
        wanted = self._router_wanted
        if wanted is not None and wanted != self._router_config and not self._router.apply(wanted):
            self._settle_soon()  # thousands of routes: others have their turn in between
            return
        self._router_config, self._router_wanted = wanted or self._router_config, None
        netmap = self._settled[0] if self._settled is not None else None
        self.names.want(netmap if self.prefs.corp_dns else None)

    def _settle_report(self) -> None:
        report = self.underlay.report
        home = self.underlay.relays.home
        if report is not None or home:
            info = (
                report.net_info(home=home, os_has_ipv6=hostinfo.os_has_ipv6())
                if report is not None
                else NetInfo(preferred_derp=home)
            )
            if self._net_info is None or _without_latency(info) != _without_latency(self._net_info):
                self._net_info = info
        if self._control is not None:
            self._control.client.set_report(self._report(), self._now())
            self._control.pump()

    # ---- the underlay and the network ---------------------------------------------------------------------------

    def underlay_changed(self) -> None:
        """A relay came or went, home moved, endpoints changed."""
        self._settle_soon()

    def peer_answered(self, key: NodePublic) -> None:
        """A handshake was done."""
        if not self._live_peer:
            self._live_peer = True
            self._settle()

    def engine_failed(self, reason: str) -> None:
        """The engine is gone: the daemon must end (and be started anew)."""
        if not self.failed.done():
            self.failed.set_result(reason)

    def _network_changed(self, old: NetworkState, new: NetworkState) -> None:
        if old != new:
            log.info("The network changed: %s", ", ".join(map(str, new.addresses)) or "no addresses")
            self.underlay.network_changed(new)
            if self._control is not None and self.prefs.want_running and self._key is not None:
                if set(old.addresses) - set(new.addresses):
                    self._control.client.reconnect(self._now())
                else:
                    self._control.client.connect(self._now())
                self._control.pump()
        if self.names.look():
            self._settle_soon()
        self.names.want(self.names.wanted, again=True)  # the host's own resolvers may be others now
        if self._router_config is not None:
            try:
                while not self._router.apply(self._router_config):  # another program may have taken our rules away
                    pass
            except BuriError as error:
                log.warning("%s", error)

    # ---- small helps --------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tell(self, notice: Notice) -> None:
        for listener in list(self._listeners):
            listener(notice)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("A background task failed; please report this.", exc_info=error)


def _without_latency(info: NetInfo) -> NetInfo:
    return msgspec.structs.replace(info, derp_latency=None)
