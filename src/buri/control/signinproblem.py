"""Why somebody could not sign in: a code for every reason, and its sentence. The web room's catalogue translates them."""

from __future__ import annotations

from buri.core.errors import RefusedError

SENTENCES = {
    "wrong-password": "The name or the password is wrong.",
    "too-many": "There were too many attempts from here. Wait five minutes, then try again.",
    "busy": "Too many people sign in at this moment. Try again in a minute.",
    "page-expired": "This sign-in took too long, or was begun in another browser. Start it again.",
    "replayed": "This sign-in was finished already. Start it again if you are not signed in.",
    "mixed-up": "The answer came from another provider than the one that was asked. Start again.",
    "denied": "{provider} did not sign you in: {reason}.",
    "provider-down": "{provider} cannot be reached at this moment ({reason}). Try again later, or sign in another way.",
    "provider-nonsense": "{provider} answered what no OpenID provider should ({reason}). Its settings, or ours for it, "
    "need an administrator's look.",
    "bad-token": "{provider} sent an identity that does not hold ({reason}). Start again; if it stays so, tell the owner "
    "of this server.",
    "not-allowed": "{who} may not sign in here. Ask the owner of this server for an invitation.",
    "link-over": "This link has been used, is too old, or was never made. Ask for a new one.",
    "identity-taken": "{who} belongs to another person of this server already. Sign out at {provider}, or use a password.",
    "name-unfit": "A name is letters, digits and ._+- after a letter or digit, perhaps with @domain.",
    "name-taken": "This name is somebody else's. Choose another one.",
    "password-short": "A password has at least {least} characters.",
    "password-long": "A password has at most {most} characters.",
    "password-name": "The password must not be the name.",
    "passwords-differ": "The two passwords are not the same.",
    "unknown-provider": "This server has no such provider.",
    "no-login": "This login is unknown or over. Start it again on the machine.",
    "not-joined": "The machine could not join: {reason}",
    "foreign-form": "This page was too old, or the form came from elsewhere. Nothing was done; try again.",
}


class SignInProblem(RefusedError):
    """An understood refusal, for the person at the browser. `details` fill the sentence's places."""

    def __init__(self, code: str, **details: str) -> None:
        super().__init__(SENTENCES[code].format(**details))
        self.code = code
        self.details = details
        self.onward = "/"
        """Where the person wanted to go, as far as it is known: there they begin again."""
