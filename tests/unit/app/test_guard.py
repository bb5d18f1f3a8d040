import asyncio
import base64

import pytest

from tag2mask.app.guard import COOKIE, Guard, check_auth
from tag2mask.errors import Tag2MaskError


class Page:
    """Remembers the sessions that reach it."""

    def __init__(self):
        self.sessions = []

    async def __call__(self, scope, receive, send):
        self.sessions.append(scope["state"]["session"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})


def ask(guard, method="GET", host="127.0.0.1:7860", **headers):
    """Send one request; return its status and headers."""
    sent = []

    async def send(message):
        sent.append(message)

    raw = [(b"host", host.encode())]
    raw += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "headers": raw}
    asyncio.run(guard(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.fixture
def page():
    return Page()


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("[::1]:7860", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ],
)
def test_only_names_of_this_machine_are_answered(page, host, status):
    assert ask(Guard(page), host=host)[0] == status
    assert bool(page.sessions) == (status == 200)


def test_another_name_needs_permission(page):
    assert ask(Guard(page, any_host=True), host="lab.example")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_other_sites_cannot_change_anything(page, method):
    assert ask(Guard(page), method)[0] == 403
    assert ask(Guard(page), method, x_tag2mask="1")[0] == 200
    assert len(page.sessions) == 1


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (basic("anna:secret:2"), 200),
        (basic("anna:secret:2").replace("Basic", "basic"), 200),
        (basic("anna:wrong"), 401),
        (basic(""), 401),
        ("Basic %%%", 401),
        ("Bearer anna:secret:2", 401),
        ("", 401),
        (None, 401),
    ],
)
def test_a_password_is_required(page, given, status):
    headers = {} if given is None else {"authorization": given}
    found, answer = ask(Guard(page, auth="anna:secret:2"), **headers)
    assert found == status
    assert (b"www-authenticate" in answer) == (status == 401)


def test_a_visitor_keeps_the_session(page):
    guard = Guard(page)
    _, headers = ask(guard)
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    _, headers = ask(guard, cookie=f"other=1; {cookie.split(';')[0]}")
    assert b"set-cookie" not in headers
    assert page.sessions[0] == page.sessions[1]
    ask(guard)
    assert page.sessions[2] != page.sessions[0]


@pytest.mark.parametrize("cookie", [f"{COOKIE}=short", f"{COOKIE}=../../x", "a=b;;=", "\xff"])
def test_a_strange_cookie_gets_a_new_session(page, cookie):
    _, headers = ask(Guard(page), cookie=cookie)
    assert b"set-cookie" in headers


def test_answers_forbid_foreign_scripts_and_frames(page):
    _, headers = ask(Guard(page))
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_the_password_of_the_command_line_has_two_parts():
    assert check_auth(None) is None
    assert check_auth("anna:a:b") == "anna:a:b"
    for wrong in ("anna", "anna:", ":secret", ""):
        with pytest.raises(Tag2MaskError, match="USER:PASSWORD"):
            check_auth(wrong)
