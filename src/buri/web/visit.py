"""One request of a browser: who is signed in, in which language, and whether its form is ours.

Cookies: a session's token (HttpOnly), and a random `visit` that binds forms to a browser before anybody is signed in. On an
https server both carry the `__Host-` prefix, so that no other host and no plain page can plant them. A form's `csrf` is an
HMAC of one of them: nothing is stored, it lives as long as its cookie, and two tabs have the same.
"""

from __future__ import annotations

import hmac
import secrets
import urllib.parse
from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import Response

from buri.control.logins import source_of
from buri.control.signinproblem import SignInProblem
from buri.control.snapshot import UserRecord
from buri.control.webport import SignInPort
from buri.web.texts import Text, choose_language, texts_in

SESSION, VISIT, LANGUAGE = "buri-session", "buri-visit", "buri-language"
MAX_FORM_BYTES = 64 << 10
SESSION_COOKIE_S = 14 * 86400
YEAR_S = 365 * 86400


class Visit:
    """A request with what its cookies say. `person` is None for somebody who is not signed in."""

    def __init__(self, request: Request, port: SignInPort) -> None:
        self.request = request
        self.port = port
        self.secure = port.url.startswith("https:")
        self.token = request.cookies.get(self._named(SESSION), "")
        self.person: UserRecord | None = port.person(self.token)
        self.language = choose_language(request.cookies.get(LANGUAGE, ""), request.headers.get("accept-language", ""))
        self.text: Text = texts_in(self.language)
        known = request.cookies.get(self._named(VISIT), "")
        self._visit = known or secrets.token_urlsafe(24)
        self._set_visit = not known

    @property
    def csrf(self) -> str:
        """What a form of somebody who is signed in must bring back."""
        return _mark(self.token) if self.person is not None else ""

    @property
    def entry_csrf(self) -> str:
        """What a form that signs in must bring back: another tab may have signed in meanwhile."""
        return _mark(self._visit)

    @property
    def here(self) -> str:
        """This page as a GET shows it again, for links that come back to it."""
        url = self.request.url
        if url.path.startswith("/login/") or self.request.method == "POST":
            return "/login" if url.path.startswith("/login/") else url.path
        return f"{url.path}?{url.query}" if url.query else url.path

    @property
    def source(self) -> str:
        """The network address that asks. A proxy on this machine says in X-Forwarded-For whom it speaks for."""
        client = self.request.client
        host = client.host if client is not None else ""
        forwarded = self.request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if forwarded and (not host or _is_loopback(host)):
            host = forwarded
        return source_of(f"[{host}]:1" if ":" in host else f"{host}:1") or host

    async def form(self, *, entry: bool = False) -> dict[str, str]:
        """The form that was sent. Raises SignInProblem for one that is not of a page of ours in this browser.

        `entry`: it signs in; every other form needs somebody who is signed in.
        """
        if not self._is_own_origin():
            raise SignInProblem("foreign-form")
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await self.request.body()
        if kind != "application/x-www-form-urlencoded" or len(body) > MAX_FORM_BYTES:
            raise SignInProblem("foreign-form")
        try:
            form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
        except (ValueError, UnicodeDecodeError) as error:
            raise SignInProblem("foreign-form") from error
        mark = self.entry_csrf if entry else self.csrf
        if not mark or not hmac.compare_digest(mark.encode(), form.get("csrf", "").encode()):
            raise SignInProblem("foreign-form")
        return form

    def _is_own_origin(self) -> bool:
        if self.request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = self.request.headers.get("origin", "")
        return not origin or origin.lower() in (self._origin(self.port.url), self._origin(self._own_address()))

    def _own_address(self) -> str:
        """As the browser itself calls us: one server may have several addresses, and Origin cannot be made up."""
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{self.request.headers.get('host', '')}"

    @staticmethod
    def _origin(url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
        return f"{parts.scheme}://{parts.netloc.removesuffix(default)}".lower()

    def sign_in(self, response: Response, token: str) -> Response:
        """Give the browser its new session."""
        self._keep(response, SESSION, token, SESSION_COOKIE_S)
        return response

    def sign_out(self, response: Response) -> Response:
        self._drop(response, SESSION)
        return response

    def keep_flow(self, response: Response, name: str, value: str, path: str, lifetime_s: int) -> None:
        """Keep a sign-in that is on its way; Lax, for the way back comes from another site."""
        response.set_cookie(
            name, value, max_age=lifetime_s, path=path, secure=self.secure, httponly=True, samesite="lax"
        )

    def drop_flow(self, response: Response, name: str, path: str) -> None:
        response.delete_cookie(name, path=path, secure=self.secure, httponly=True, samesite="lax")

    def keep_language(self, response: Response, language: str) -> None:
        response.set_cookie(LANGUAGE, language, max_age=YEAR_S, secure=self.secure, httponly=True, samesite="lax")

    def finish(self, response: Response) -> Response:
        """What every answer carries."""
        if self._set_visit:
            self._keep(response, VISIT, self._visit, None)
        return response

    def _named(self, cookie: str) -> str:
        return f"__Host-{cookie}" if self.secure else cookie

    def _keep(self, response: Response, cookie: str, value: str, lifetime_s: int | None) -> None:
        name = self._named(cookie)
        response.set_cookie(
            name, value, max_age=lifetime_s, path="/", secure=self.secure, httponly=True, samesite="lax"
        )

    def _drop(self, response: Response, cookie: str) -> None:
        response.delete_cookie(self._named(cookie), path="/", secure=self.secure, httponly=True, samesite="lax")


def onward_path(text: str) -> str:
    """Where to go after signing in: a path of this server; anything else is the front page (no open redirect)."""
    fine = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isascii() and text.isprintable()
    return text if fine and "\\" not in text and len(text) <= 512 else "/"


def _mark(secret: str) -> str:
    return hmac.digest(secret.encode(), b"buri form", "sha256").hex()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
