"""Documents in several formats: the caller chooses one by `?format=` or by `Accept`."""

import re
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, Annotated, Any, BinaryIO, Literal, Self, cast

from litestar import Request, Response
from litestar.datastructures.headers import Accept
from litestar.params import Parameter
from litestar.response import Stream
from msgspec import Struct

from ledger.api.http.problems import ProblemError
from ledger.api.http.responses import POSITION_HEADER
from ledger.operations.render import MEDIA_TYPES

Form = Literal["json", "csv", "markdown", "xlsx", "text"]

ChosenForm = Annotated[
    Form | None,
    Parameter(
        query="format",
        required=False,
        description="The format of the response; without it, the one that `Accept` prefers.",
    ),
]

IN_MEMORY = 4 * 1024 * 1024
"""Bytes; a longer document is kept in a temporary file while it is sent."""

PART = 256 * 1024

_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*(;|$)")
_BAD_QUALITY = re.compile(r";\s*q=(?![01](\.\d*)?\s*(;|$))")

ENDINGS: dict[Form, str] = {
    "json": "json", "csv": "csv", "markdown": "md", "xlsx": "xlsx", "text": "txt",
}  # fmt: skip


def choose_form(request: Request[Any, Any, Any], form: Form | None) -> Form:
    """Return the format that the caller wants. Raises a 406 problem if it is not available."""
    if form is not None:
        return form
    types = {_media_type(name): name for name in ENDINGS}  # JSON first: it wins `*/*`
    header = request.headers.get("accept", "").strip() or "*/*"
    # The framework fails on some of these, such as q=inf.
    parts = [part for part in header.split(",") if not _BAD_QUALITY.search(part)]
    refused = {part.partition(";")[0].strip() for part in parts if _REFUSED.search(part)}
    wanted = ",".join(part for part in parts if not _REFUSED.search(part)).strip()
    available = [name for name in types if name not in refused]
    accepted = Accept(wanted).best_match(available, default=None) if wanted else None
    if accepted is None:
        raise ProblemError(406, f"the response can be {', '.join(sorted(types))}; see ?format=")
    return types[accepted]


class Document(Struct, frozen=True):
    """A document in a temporary file, with the log position that it reflects."""

    file: IO[bytes]
    form: Form
    name: str
    position: int

    @classmethod
    def write(cls, form: Form, name: str, position: int, write: Callable[[BinaryIO], None]) -> Self:
        """Write a document; its file is closed once the response is sent."""
        file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 -- sent later
        try:
            write(cast("BinaryIO", file))
        except BaseException:
            file.close()
            raise
        return cls(file, form, name, position)

    def response(self) -> Response[bytes] | Stream:
        """Return the response with the document."""
        headers = {POSITION_HEADER: str(self.position)}
        if self.form in ("csv", "xlsx"):
            name = f"{self.name}.{ENDINGS[self.form]}"
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        size = self.file.tell()
        self.file.seek(0)
        media_type = _media_type(self.form)  # the framework adds the charset
        if size <= IN_MEMORY:
            with self.file:
                return Response(self.file.read(), media_type=media_type, headers=headers)
        return Stream(self._parts(), media_type=media_type, headers=headers)

    async def _parts(self) -> AsyncIterator[bytes]:
        with self.file:
            while part := self.file.read(PART):
                yield part


def _media_type(form: Form) -> str:
    return MEDIA_TYPES[form].partition(";")[0]
