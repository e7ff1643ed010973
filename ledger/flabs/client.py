"""The client of Flabs' account API: logs in, lists the labs, subscribes webhooks.

The tokens of a login live in memory alone. A call is repeated, with growing pauses, only if Flabs
answers that it failed (5xx) or the connection fails; and once, with a new login, after a 401.
"""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import httpx
from msgspec import Struct

from ledger.errors import (
    FlabsLoginError,
    FlabsUnavailableError,
    SettingsError,
    one_line,
)
from ledger.flabs import answers
from ledger.flabs.answers import AccountLab, Answer, Tokens
from ledger.settings import Settings

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
"""Seconds."""

PAUSES = (0.5, 2.0)
"""Seconds before the second and the third try of a call."""

MOST_BYTES = 4 * 1024 * 1024
"""An answer that is longer is not as documented."""

EARLY = 30.0
"""Seconds before its end at which a token is refreshed, or a tenth of its life if that is less."""

Outcome = Literal["subscribed", "already"]
PartyKind = Literal["corporateUser", "organization"]


class Party(Struct, frozen=True, order=True):
    """For whom a party-scoped account subscribes."""

    kind: PartyKind
    party_id: str

    def __str__(self) -> str:
        """Return it as it is given on the command line."""
        return f"{self.kind}:{self.party_id}"


class Subscribed(Struct, frozen=True):
    """How Flabs answered a subscription: new, or there already; in its words."""

    outcome: Outcome
    words: str


class FlabsClient:
    """Calls Flabs. One thread at a time.

    Every method raises `FlabsUnavailableError`, `FlabsRefusedError`, of that `FlabsLoginError` for
    a wrong id or secret, or `UndocumentedAnswerError`.
    """

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        pauses: tuple[float, ...] = PAUSES,
        timeout: httpx.Timeout = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._pauses = pauses
        self._clock = clock
        self._sleep = sleep
        self._tokens: Tokens | None = None
        self._expires_at = 0.0
        self._base_url = base_url
        self._longest = timeout.read or 0.0
        # A redirect would carry the secret to another host.
        self._http = httpx.Client(
            base_url=base_url,
            timeout=timeout,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity"},
            trust_env=not base_url.startswith("http:"),
        )

    @classmethod
    def of(cls, settings: Settings) -> "FlabsClient":
        """Make one with the settings. Raises `SettingsError` if there is no account."""
        if not (settings.flabs_client_id and settings.flabs_client_secret):
            raise SettingsError(
                "LEDGER_FLABS_CLIENT_ID and LEDGER_FLABS_CLIENT_SECRET are not both set: set them "
                "to those of the account at Flabs"
            )
        return cls(settings.flabs_url, settings.flabs_client_id, settings.flabs_client_secret)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and forget the tokens."""
        self._tokens = None
        self._http.close()

    def log_in(self) -> None:
        """Log in, unless that was done and still holds."""
        self._token()

    def labs(self) -> list[AccountLab]:
        """Return the labs of the account, by id."""
        answer = self._authorized("GET", "/client/labs")
        if answer.status != httpx.codes.OK:
            raise self._refused(answer, "Flabs does not list the labs")
        return answers.read_labs(answer, self._secrets())

    def subscribe(
        self,
        *,
        events: tuple[str, ...],
        endpoint: str,
        lab_id: str | None,
        auth_token: str | None,
        party: Party | None = None,
    ) -> Subscribed:
        """Subscribe event types of a lab, or of all (None), to an endpoint.

        What is there already is no error: Flabs may answer that with 409.
        """
        body: dict[str, Any] = {"events": list(events), "endpoint": endpoint, "protocol": "https"}
        if auth_token is not None:
            body["authToken"] = auth_token
        if lab_id is not None:
            body["labID"] = lab_id
        if party is not None:
            body[party.kind] = party.party_id
        hidden = (auth_token or "", endpoint)
        answer = self._authorized("POST", "/client/events/subscribe", body, hidden=hidden)
        secrets = (*self._secrets(), *hidden)
        if answer.status == httpx.codes.CONFLICT:
            return Subscribed("already", answers.flabs_words(answer, secrets))
        if httpx.codes.is_success(answer.status) and answers.is_success(answer):
            return Subscribed("subscribed", answers.flabs_words(answer, secrets))
        if answer.status == httpx.codes.BAD_REQUEST:
            meaning = (
                "Flabs refuses the subscription: an account of parties needs one, any other takes "
                "none"
            )
            raise answers.refused(answer, meaning, secrets)
        raise self._refused(answer, "Flabs refuses the subscription", hidden=hidden)

    def _authorized(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        hidden: tuple[str, ...] = (),
    ) -> Answer:
        answer = self._call(method, path, body, token=self._token(), hidden=hidden)
        if answer.status == httpx.codes.UNAUTHORIZED:  # it ended early, or was withdrawn
            self._tokens = None
            answer = self._call(method, path, body, token=self._token(), hidden=hidden)
        return answer

    def _token(self) -> str:
        tokens = self._tokens
        if tokens is None:
            tokens = self._log_in()
        elif self._clock() >= self._expires_at:
            tokens = self._refresh(tokens)
        return tokens.auth_token

    def _log_in(self) -> Tokens:
        body = {"clientID": self._client_id, "clientSecret": self._client_secret}
        answer = self._call("POST", "/client/auth/token", body)
        if answer.status in _REFUSES_LOGIN:
            refused = answers.refused(
                answer,
                "Flabs refuses LEDGER_FLABS_CLIENT_ID or LEDGER_FLABS_CLIENT_SECRET",
                self._secrets(),
            )
            raise FlabsLoginError(str(refused), status=answer.status, brief=refused.brief)
        return self._keep(answer)

    def _refresh(self, tokens: Tokens) -> Tokens:
        body = {"clientID": self._client_id, "refreshToken": tokens.refresh_token}
        answer = self._call("POST", "/client/auth/token/refresh", body)
        if answer.status in _REFUSES_LOGIN:  # it dies after 30 days without use
            self._tokens = None
            return self._log_in()
        return self._keep(answer)

    def _keep(self, answer: Answer) -> Tokens:
        if not httpx.codes.is_success(answer.status):
            raise self._refused(answer, "Flabs refuses the login")
        tokens = answers.read_tokens(answer, self._secrets())
        self._tokens = tokens
        early = min(EARLY, tokens.expires_in / 10)
        self._expires_at = self._clock() + tokens.expires_in - early
        return tokens

    def _refused(self, answer: Answer, meaning: str, *, hidden: tuple[str, ...] = ()) -> Exception:
        secrets = (*self._secrets(), *hidden)
        if httpx.codes.is_client_error(answer.status):
            return answers.refused(answer, meaning, secrets)
        return answers.undocumented(answer, secrets)

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        hidden: tuple[str, ...] = (),
    ) -> Answer:
        """Make a call; try again what failed at Flabs or on the way."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = self._http.build_request(method, path, json=body, headers=headers)
        call = f"{method} {path}"
        failure: FlabsUnavailableError | None = None
        for pause in (0.0, *self._pauses):
            if pause:
                self._sleep(pause)
            try:
                answer = self._send(request, call)
            except httpx.ReadTimeout:
                # It may still be at work: to ask again would add to that.
                raise self._away(f"{call} was not answered in time") from None
            except httpx.TransportError as error:
                reason = one_line(error) or type(error).__name__
                failure = self._away(f"{call} did not get through: {reason}")
                continue
            if not httpx.codes.is_server_error(answer.status):
                return answer
            words = answers.flabs_words(answer, (*self._secrets(), *hidden))
            brief = f"Flabs failed: {call} was answered with {answer.status}"
            failure = FlabsUnavailableError(f"{brief}: {words}" if words else brief, brief=brief)
        assert failure is not None  # noqa: S101 -- the loop runs once at least
        raise failure

    def _send(self, request: httpx.Request, call: str) -> Answer:
        deadline = time.monotonic() + self._longest
        response = self._http.send(request, stream=True)
        body = bytearray()
        try:
            # Raw: whatever an encoding hides is not as documented, and could be of any length.
            for part in response.iter_raw():
                body += part
                if len(body) > MOST_BYTES:
                    break
                if time.monotonic() > deadline:  # each part came in time
                    raise httpx.ReadTimeout("too slow", request=request)
        finally:
            response.close()
        return Answer(call, response.status_code, bytes(body[: MOST_BYTES + 1]))

    def _away(self, what: str) -> FlabsUnavailableError:
        return FlabsUnavailableError(f"Flabs cannot be reached at {self._base_url}: {what}")

    def _secrets(self) -> tuple[str, ...]:
        tokens = self._tokens
        held = (tokens.auth_token, tokens.refresh_token) if tokens else ()
        return (self._client_secret, *held)


_REFUSES_LOGIN = frozenset({400, 401, 403})
