"""Log in with an API key or with a link that works once, log out, and choose a time zone."""

from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect

from ledger.api.services import Services
from ledger.credentials import without_scheme
from ledger.errors import QuestionError, UnauthenticatedError
from ledger.operations import api_keys, sessions
from ledger.page.cookies import (
    needs_https,
    no_session_cookie,
    session_cookie,
    session_token,
    zone_cookie,
)
from ledger.page.guards import require_same_origin
from ledger.page.headers import SECURITY
from ledger.page.render import find_zone, respond
from ledger.postgres.connect import connect

LONGEST_NAME = 200

AnyRequest = Request[Any, Any, Any]


class LoginController(Controller):
    """What may be done without a session."""

    path = "/"
    include_in_schema = False

    @get("/login")
    async def show_login(self, request: AnyRequest) -> Response[Any]:
        """Ask for an API key."""
        target = local_path(request.query_params.get("next"))
        return respond(request, "login.html", target=target, problem=None, name="")

    @post("/login", status_code=200)
    async def log_in(self, request: AnyRequest, services: Services) -> Response[Any]:
        """Exchange an API key for a session."""
        require_same_origin(request)
        form = await request.form()
        target = local_path(form.get("next"))
        name = str(form.get("name", "")).strip()
        problem = None
        if needs_https(request):
            problem = "the page can be used over HTTPS only, but for this machine's own address"
        elif not _is_name(name):
            problem = f"your name takes 1 to {LONGEST_NAME} characters"
        presented = without_scheme(str(form.get("key", "")).encode()).decode()
        try:
            if problem is None:
                caller = await services.authenticator.authenticate(presented)
                token = await services.decide(
                    lambda: _begin(services.url, caller.key_id, api_keys.digest_of(presented), name)
                )
                return _to(request, services, target, session_cookie(request, token))
        except UnauthenticatedError:
            problem = "this is no API key, or it has expired or was revoked"
        return respond(request, "login.html", code=401, target=target, problem=problem, name=name)

    @get("/login/link/{token:str}")
    async def follow_link(
        self, request: AnyRequest, services: Services, token: str
    ) -> Response[Any]:
        """Log in by a link, which is used up."""
        login = await services.decide(lambda: _take(services.url, token))
        accepted: list[bytes] = []

        def accepts(digests: list[bytes]) -> bool:
            accepted.extend(
                one for one in digests if login and sessions.is_proof(login.proof, token, [one])
            )
            return bool(accepted)

        if login and await services.authenticator.holder(login.key_id, accepts):
            session = await services.decide(
                lambda: _begin(services.url, login.key_id, accepted[0], login.operator)
            )
            return _to(request, services, "/", session_cookie(request, session))
        problem = "the link was used before, or it is too old: log in with an API key"
        return respond(request, "login.html", code=401, target="/", problem=problem, name="")

    @post("/logout", status_code=303)
    async def log_out(self, request: AnyRequest, services: Services) -> Response[Any]:
        """End the session."""
        require_same_origin(request)
        token = session_token(request)
        if token:
            await services.decide(lambda: _end(services.url, token))
        return _to(request, services, "/login", no_session_cookie(request))

    @post("/zone", status_code=303)
    async def choose_zone(self, request: AnyRequest, services: Services) -> Response[Any]:
        """Choose the zone in which times are shown."""
        require_same_origin(request)
        form = await request.form()
        zone = str(form.get("zone", "")).strip() or "UTC"
        if find_zone(zone) is None:
            raise QuestionError(
                f"{zone[:100]!r} is no time zone that this machine knows: it takes names such as "
                "Europe/Berlin, or UTC"
            )
        return _to(request, services, local_path(form.get("back")), zone_cookie(request, zone))


def local_path(text: object) -> str:
    """Return a path of this page, "/" for anything that could lead elsewhere."""
    path = str(text or "/")
    parts = urlsplit(path)
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_local and not parts.netloc and path.isprintable() else "/"


def _is_name(name: str) -> bool:
    return bool(name) and len(name) <= LONGEST_NAME and "\x00" not in name


def _to(request: AnyRequest, services: Services, path: str, cookie: Any) -> Response[Any]:  # noqa: ANN401, ARG001
    headers = {**SECURITY, "Cache-Control": "no-store"}
    address = f"{services.settings.path_prefix}{path}"
    return Redirect(address, status_code=303, headers=headers, cookies=[cookie])


def _begin(url: str, key_id: str, key_digest: bytes, name: str) -> str:
    with closing(connect(url, "login")) as connection:
        return sessions.begin(connection, key_id, key_digest, operator=name)


def _take(url: str, token: str) -> sessions.Login | None:
    with closing(connect(url, "login")) as connection:
        return sessions.take_link(connection, token)


def _end(url: str, token: str) -> None:
    with closing(connect(url, "login")) as connection:
        sessions.end(connection, token)
