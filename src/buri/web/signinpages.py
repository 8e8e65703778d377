"""The pages on which a person signs in and lets a machine join: `/register/CODE`, `/login`, `/logout`, `/welcome/TOKEN`.

Nothing happens by a GET but the beginning and end of a provider's sign-in, which its own state guards. What fails comes
back as the same page with a sentence.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from buri.control.service import PendingLogin
from buri.control.signinproblem import SignInProblem
from buri.control.webport import SignInPort
from buri.web.render import onward, page
from buri.web.texts import LANGUAGES
from buri.web.visit import Visit, onward_path

REGISTER, LOGIN, WELCOME = "/register/", "/login", "/welcome/"
CALLBACK = "/login/callback/"
View = Callable[[Visit], Awaitable[Response]]
_STATUS = {"too-many": 429, "busy": 503, "provider-down": 502, "provider-nonsense": 502, "foreign-form": 403}


class SignInPages:
    """Views by path. `console`: where an administrator's console is, "" = nowhere."""

    def __init__(self, port: SignInPort, *, console: str = "") -> None:
        self._port = port
        self._console = console

    def routes(self) -> list[Route]:
        """The room's routes."""

        def route(path: str, view: View, *methods: str) -> Route:
            async def endpoint(request: Request) -> Response:
                return await view(Visit(request, self._port))

            return Route(path, endpoint, methods=list(methods or ("GET",)))

        return [
            route("/", self.home),
            route("/register/{code}", self.machine),
            route("/register/{code}", self.decide, "POST"),
            route("/login", self.login),
            route("/login", self.sign_in, "POST"),
            route("/login/with/{provider}", self.depart),
            route("/login/callback/{provider}", self.arrive),
            route("/logout", self.sign_out, "POST"),
            route("/welcome/{token}", self.welcome),
            route("/welcome/{token}", self.accept, "POST"),
            route("/language/{language}", self.language),
        ]

    # ---- machines -------------------------------------------------------------------------------------------------

    async def machine(self, visit: Visit) -> Response:
        """The page that `buri up` prints the address of."""
        code = visit.request.path_params["code"]
        login = self._port.machine(code)
        if login is None:
            return page(visit, "machine_unknown.html", status=404, code=code)
        if login.approved:
            return page(visit, "machine_joined.html", login=login)
        if visit.person is None:
            return self._login_page(visit, REGISTER + code, login)
        return page(visit, "machine.html", login=login, problem=None)

    async def decide(self, visit: Visit) -> Response:
        """The click: join, or turn away."""
        code = visit.request.path_params["code"]
        login = self._port.machine(code)
        if login is None:
            return page(visit, "machine_unknown.html", status=404, code=code)
        if visit.person is None or login.approved:
            return await self.machine(visit)
        try:
            form = await visit.form()
            if form.get("decision") == "refuse":
                self._port.turn_away(code)
                return page(visit, "machine_refused.html")
            await self._port.admit(code, visit.person)
        except SignInProblem as problem:
            return page(visit, "machine.html", status=_STATUS.get(problem.code, 409), login=login, problem=problem)
        return onward(visit, REGISTER + code)

    # ---- in and out -----------------------------------------------------------------------------------------------

    async def login(self, visit: Visit) -> Response:
        """The page to sign in on; `again` shows it to somebody who is signed in, too."""
        to = onward_path(visit.request.query_params.get("next", "/"))
        if visit.person is not None and "again" not in visit.request.query_params:
            return onward(visit, to)
        return self._login_page(visit, to, self._machine_of(to))

    async def sign_in(self, visit: Visit) -> Response:
        """A name and a password were sent."""
        name, to = "", "/"
        try:
            form = await visit.form(entry=True)
            name, to = form.get("name", "").strip(), onward_path(form.get("next", "/"))
            token = await self._port.sign_in(name, form.get("password", ""), visit.source, replacing=visit.token)
        except SignInProblem as problem:
            return self._login_page(visit, to, self._machine_of(to), problem=problem, name=name)
        return visit.sign_in(onward(visit, to), token)

    async def depart(self, visit: Visit) -> Response:
        """Off to a provider."""
        provider = visit.request.path_params["provider"]
        to = onward_path(visit.request.query_params.get("next", "/"))
        try:
            departure = await self._port.depart(provider, to, visit.request.query_params.get("link", "")[:200])
        except SignInProblem as problem:
            return self._login_page(visit, to, self._machine_of(to), problem=problem)
        response = onward(visit, departure.url)
        path = CALLBACK + urllib.parse.quote(provider)
        visit.keep_flow(response, departure.cookie_name, departure.cookie, path, departure.lifetime_s)
        return response

    async def arrive(self, visit: Visit) -> Response:
        """Back from a provider."""
        provider = visit.request.path_params["provider"]
        query = dict(visit.request.query_params)
        try:
            arrival = await self._port.arrive(provider, query, visit.request.cookies, replacing=visit.token)
        except SignInProblem as problem:
            to = onward_path(problem.onward)
            return self._login_page(visit, to, self._machine_of(to), problem=problem)
        response = visit.sign_in(onward(visit, arrival.onward), arrival.token)
        visit.drop_flow(response, arrival.cookie_name, CALLBACK + urllib.parse.quote(provider))
        return response

    async def sign_out(self, visit: Visit) -> Response:
        """End this browser's session."""
        try:
            await visit.form()
        except SignInProblem as problem:
            return page(visit, "problem.html", status=403, problem=problem)
        await self._port.sign_out(visit.token)
        return visit.sign_out(onward(visit, LOGIN))

    # ---- one-time links -------------------------------------------------------------------------------------------

    async def welcome(self, visit: Visit) -> Response:
        """What a one-time link leads to; looking at it does not spend it, for mail programs look too."""
        return self._welcome_page(visit)

    async def accept(self, visit: Visit) -> Response:
        """A password was chosen."""
        name = ""
        try:
            form = await visit.form(entry=True)
            name, password = form.get("name", "").strip(), form.get("password", "")
            if password != form.get("again", ""):
                raise SignInProblem("passwords-differ")
            token = visit.request.path_params["token"]
            session = await self._port.accept(token, name, password, replacing=visit.token)
        except SignInProblem as problem:
            return self._welcome_page(visit, problem, name)
        return visit.sign_in(onward(visit, "/"), session)

    def _welcome_page(self, visit: Visit, problem: SignInProblem | None = None, name: str = "") -> Response:
        token = visit.request.path_params["token"]
        invitation = self._port.invitation(token)
        if invitation is None:
            return page(visit, "link_over.html", status=404)
        status = 200 if problem is None else _STATUS.get(problem.code, 400)
        return page(
            visit,
            "welcome.html",
            status=status,
            invitation=invitation,
            token=token,
            name=name or invitation.name,
            problem=problem,
            passwords=self._port.passwords or invitation.kind == "password",
            providers=() if invitation.kind == "password" else self._port.providers,
        )

    # ---- the rest -------------------------------------------------------------------------------------------------

    async def home(self, visit: Visit) -> Response:
        """The front page; for somebody who is signed in, their machines."""
        if visit.person is None:
            return page(visit, "front.html")
        return page(visit, "home.html", nodes=self._port.machines(visit.person), console=self._console)

    async def language(self, visit: Visit) -> Response:
        """Choose a language and go back."""
        response = onward(visit, onward_path(visit.request.query_params.get("next", "/")))
        if (language := visit.request.path_params["language"]) in LANGUAGES:
            visit.keep_language(response, language)
        return response

    def _machine_of(self, to: str) -> PendingLogin | None:
        return self._port.machine(to[len(REGISTER) :]) if to.startswith(REGISTER) else None

    def _login_page(
        self,
        visit: Visit,
        to: str,
        login: PendingLogin | None,
        *,
        problem: SignInProblem | None = None,
        name: str = "",
    ) -> Response:
        status = 200 if problem is None else _STATUS.get(problem.code, 400)
        return page(
            visit,
            "login.html",
            status=status,
            to=to,
            login=login,
            problem=problem,
            name=name,
            providers=self._port.providers,
            passwords=self._port.passwords,
            unclaimed=self._port.unclaimed,
        )
