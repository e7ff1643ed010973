"""The one shape of every HTTP error. Source: RFC 9457."""

from http import HTTPStatus

from msgspec import Struct

MEDIA_TYPE = "application/problem+json"


class Problem(Struct, frozen=True):
    """What went wrong. `title` goes with `status`; `detail` says what happened and what to do."""

    type: str
    title: str
    status: int
    detail: str

    @classmethod
    def of(cls, status: int, detail: str) -> "Problem":
        """Make the problem of an HTTP status."""
        return cls("about:blank", HTTPStatus(status).phrase, status, detail)
