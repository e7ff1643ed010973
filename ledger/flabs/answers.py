"""Reads Flabs' answers, and tells what is wrong with one without telling a secret.

Source: Flabs' public documentation of its account API. It does not say how the list of labs is
named, so several readings are accepted.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from ledger.errors import FlabsRefusedError, UndocumentedAnswerError
from ledger.model.event import MAX_LENGTH

EXCERPT = 200
"""Characters of an answer that are shown."""

T = TypeVar("T")

_SECRET_FIELD = re.compile(
    r"""(\w{0,20}(?:token|secret)\w{0,20}["']?\s{0,9}[:=]\s{0,9}["']?)[^"',}\s]+""", re.IGNORECASE
)
_SHORTEST = 6
"""Characters of a secret: a shorter one would blot out ordinary words."""


class Answer(Struct, frozen=True):
    """An answer of Flabs: to which call (`POST /client/...`), its status, and its body."""

    call: str
    status: int
    body: bytes


class Tokens(Struct, frozen=True, rename="camel"):
    """What a login answers. `expires_in` is in seconds."""

    auth_token: str
    refresh_token: str
    expires_in: float

    def __repr__(self) -> str:
        """Hide the values, which a repr would show in a traceback."""
        return "Tokens(...)"


class AccountLab(Struct, frozen=True):
    """A lab (branch) of the account; `name` is null if Flabs does not say one."""

    lab_id: str
    name: str | None = None


def read_tokens(answer: Answer, secrets: Iterable[str]) -> Tokens:
    """Return the tokens of a login. Raises `UndocumentedAnswerError`."""
    try:
        tokens = msgspec.json.decode(answer.body, type=Tokens)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise undocumented(answer, secrets) from None
    usable = all(
        token and token.isascii() and token.isprintable() and " " not in token
        for token in (tokens.auth_token, tokens.refresh_token)
    )
    if not (usable and tokens.expires_in > 0):
        raise undocumented(answer, secrets)
    return tokens


def read_labs(answer: Answer, secrets: Iterable[str]) -> list[AccountLab]:
    """Return the account's labs by id, each once. Raises `UndocumentedAnswerError`."""
    value = _decoded(answer.body)
    if isinstance(value, dict):
        value = next((value[name] for name in ("labs", "branches", "data") if name in value), None)
    if isinstance(value, dict):
        value = next((value[name] for name in ("labs", "branches") if name in value), None)
    if not isinstance(value, list):
        raise undocumented(answer, secrets)
    labs = [_lab(entry) for entry in value]
    if None in labs:
        raise undocumented(answer, secrets)
    unique = {lab.lab_id: lab for lab in labs if lab is not None}
    return [unique[lab_id] for lab_id in sorted(unique)]


def _lab(entry: object) -> AccountLab | None:
    if isinstance(entry, str):
        found: Any = entry
        name = None
    elif isinstance(entry, dict):
        found = _first(entry, ("labID", "labId", "lab_id", "_id", "id"))
        name = _first(entry, ("name", "labName"))
    else:
        return None
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not 0 < len(found) <= MAX_LENGTH or not _storable(found):
        return None
    return AccountLab(found, name[:MAX_LENGTH] if name and _storable(name) else None)


def _first(entry: dict[str, Any], names: Iterable[str]) -> Any:  # noqa: ANN401 -- JSON
    found = (entry[name] for name in names if isinstance(entry.get(name), (str, int)))
    return next(found, None)


def _storable(text: object) -> bool:
    return isinstance(text, str) and text.isprintable()


def is_success(answer: Answer) -> bool:
    """Return whether Flabs says that it has done what was asked, in the documented way."""
    value = _decoded(answer.body)
    return isinstance(value, dict) and value.get("success") is True


def refused(answer: Answer, meaning: str, secrets: Iterable[str]) -> FlabsRefusedError:
    """Say in Flabs' words and ours that it refused a call."""
    return FlabsRefusedError(
        f"{meaning} ({answer.call} was answered with {answer.status}{_said(answer, secrets)})",
        status=answer.status,
        brief=f"{meaning} ({answer.call} was answered with {answer.status})",
    )


def undocumented(answer: Answer, secrets: Iterable[str]) -> UndocumentedAnswerError:
    """Say that an answer is not as documented, with its beginning."""
    brief = f"Flabs answered {answer.call} with {answer.status} and not as it documents"
    shown = excerpt(answer.body, secrets)
    return UndocumentedAnswerError(f"{brief}: {shown or 'an empty answer'}", brief=brief)


def _said(answer: Answer, secrets: Iterable[str]) -> str:
    words = flabs_words(answer, secrets)
    return f": {words}" if words else ""


def flabs_words(answer: Answer, secrets: Iterable[str]) -> str:
    """Return what Flabs says in an answer: its message, or the beginning of it all."""
    value = _decoded(answer.body)
    if isinstance(value, dict):
        for name in ("message", "error"):
            if isinstance(value.get(name), str):
                return excerpt(value[name].encode(errors="replace"), secrets)
    return excerpt(answer.body, secrets)


def excerpt(body: bytes, secrets: Iterable[str]) -> str:
    """Return the beginning of a text as one printable line, without secrets."""
    # Cut late, so that no secret is cut in two and shown by half.
    text = body[: 64 * 1024].decode(errors="replace")
    for secret in sorted(filter(lambda one: len(one) >= _SHORTEST, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = " ".join(_SECRET_FIELD.sub(r"\1***", text).split())
    shown = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return shown[:EXCERPT]


def _decoded(body: bytes) -> Any:  # noqa: ANN401 -- JSON
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
