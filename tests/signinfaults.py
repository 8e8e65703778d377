"""The table of faults (`faults.py`): what the sign-in takes in."""

from __future__ import annotations

from faultrow import Fault, U

SIGN_IN = [
    Fault(
        "a form of the sign-in pages, its cookies, and where it says to go afterwards",
        "anybody with a browser",
        "403 and nothing done for a foreign one; a wrong name or password is 400, past ten in five minutes 429",
        (
            U + "web/test_signinpages.py::test_a_form_from_elsewhere_does_nothing",
            U + "web/test_signinpages.py::test_guessing_passwords_is_slow",
            U + "web/test_signinpages.py::test_after_signing_in_nobody_is_sent_elsewhere",
        ),
        ("http:/login", "http:/logout", "http:/language/{language}"),
    ),
    Fault(
        "a one-time link's token, and the name and password that it is answered with",
        "anybody with a browser",
        "404 with a sentence for one that was used, is too old or was never made",
        (
            U + "web/test_signinpages.py::test_links_end_and_looking_at_one_does_not_spend_it",
            U + "web/test_signinpages.py::test_an_invited_person_chooses_a_password_once",
        ),
        ("http:/welcome/{token}",),
    ),
    Fault(
        "what a browser brings back from an OpenID provider",
        "anybody with a browser",
        "400 with a sentence; a state of another browser, of another provider, or one that served begins nothing",
        (
            U + "web/test_providerpages.py::test_a_callback_of_another_browser_or_too_late_begins_nothing",
            U + "web/test_providerpages.py::test_a_callback_serves_once_restarts_included",
            U + "web/test_providerpages.py::test_the_answer_of_one_provider_is_not_taken_for_anothers",
            U + "web/test_providerpages.py::test_a_changed_cookie_is_nobodys",
        ),
        ("http:/login/with/{provider}", "http:/login/callback/{provider}", "control.signin.SignIn._opened"),
    ),
    Fault(
        "an OpenID provider's description, keys, tokens and claims",
        "the provider, or whoever answers at its address",
        "502 (an identity that does not hold: 400) and one sentence that names the provider and what is wrong",
        (
            U + "control/oidc/test_idtoken.py::test_a_wrong_claim_is_refused",
            U + "control/oidc/test_idtoken.py::test_what_is_no_token_is_refused",
            U + "control/oidc/test_idtoken.py::test_keys_that_do_not_read_are_passed_over",
            U + "web/test_providerpages.py::test_a_provider_that_is_down_is_one_sentence_and_others_go_on",
        ),
        (
            "control.oidc.claims.read_person",
            "control.oidc.fetch.HTTPFetcher._ask",
            "control.oidc.idtoken.read_keys",
            "control.oidc.idtoken.read_token",
            "control.oidc.idtoken._verified",
            "control.oidc.metadata.read_metadata",
        ),
    ),
    Fault(
        "the providers of the command line, and their secrets' files",
        "whoever starts the server",
        "one sentence and 2",
        (
            U + "control/oidc/test_settings.py::test_a_provider_that_is_none_is_refused",
            U + "control/oidc/test_settings.py::test_a_secret_that_is_none_is_refused",
        ),
        ("control.oidc.settings.read_providers",),
    ),
    Fault(
        "the owner's one-time link that a server keeps",
        "the disk",
        "one that does not work is replaced",
        (U + "web/test_signinpages.py::test_the_owners_link_is_kept_until_an_owner_can_sign_in",),
        ("file:owner-link",),
    ),
]
