"""Answers that are documents in several forms: chosen by the caller, written beside the loop."""

import re
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import IO, Annotated, Any, BinaryIO, Literal, cast

from litestar import Request, Response
from litestar.datastructures.headers import Accept
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter
from litestar.response import Stream

from ledger.api.http.problem_handlers import ProblemError
from ledger.api.http.responses import POSITION_HEADER
from ledger.operations.render import MEDIA_TYPES

Form = Literal["json", "csv", "markdown", "xlsx", "text"]

ChosenForm = Annotated[
    Form | None,
    Parameter(
        query="format",
        required=False,
        description="The form of the answer; without it, what `Accept` prefers.",
    ),
]

IN_MEMORY = 4 * 1024 * 1024
"""Bytes; a longer document lies in a temporary file while it is sent."""

PART = 256 * 1024

_REFUSED = re.compile(r";\s*q=0(\.0*)?\s*(;|$)")

ENDINGS: dict[Form, str] = {
    "json": "json", "csv": "csv", "markdown": "md", "xlsx": "xlsx", "text": "txt",
}  # fmt: skip


def choose_form(request: Request[Any, Any, Any], form: Form | None) -> Form:
    """Return the form that the caller wants. Raises a 406 problem if there is none of it."""
    if form is not None:
        return form
    types = {_bare(name): name for name in ENDINGS}  # JSON first: for who takes anything
    parts = request.headers.get("accept", "").split(",")
    refused = {part.partition(";")[0].strip() for part in parts if _REFUSED.search(part)}
    accept = Accept(",".join(part for part in parts if not _REFUSED.search(part)).strip() or "*/*")
    accepted = accept.best_match([name for name in types if name not in refused], default=None)
    if refused and all(_REFUSED.search(part) for part in parts):
        accepted = None  # nothing was named but what is not wanted
    if accepted is None:
        raise ProblemError(406, f"the answer can be {', '.join(sorted(types))}; see ?format=")
    return types[accepted]


class Written:
    """A document in a temporary file, with the log position that it is true for."""

    def __init__(self, form: Form, name: str) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 -- sent later
        self.position = 0
        self._form = form
        self._name = name

    def write(self, position: int, write: Callable[[BinaryIO], None]) -> "Written":
        """Write it."""
        self.position = position
        write(cast("BinaryIO", self.file))
        return self

    def response(self, status: int = 200) -> Response[bytes] | Stream:
        """Answer with it."""
        headers = {POSITION_HEADER: str(self.position)}
        if self._form in ("csv", "xlsx"):
            name = f"{self._name}.{ENDINGS[self._form]}"
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        size = self.file.tell()
        self.file.seek(0)
        media_type = _bare(self._form)  # the framework adds what charset it is
        if size <= IN_MEMORY:
            with self.file:
                return Response(
                    self.file.read(), status_code=status, media_type=media_type, headers=headers
                )
        return Stream(self._parts(), status_code=status, media_type=media_type, headers=headers)

    async def _parts(self) -> AsyncIterator[bytes]:
        with self.file:
            while part := self.file.read(PART):
                yield part


def _bare(form: Form) -> str:
    return MEDIA_TYPES[form].partition(";")[0]


def document(shape: Any, description: str) -> ResponseSpec:  # noqa: ANN401 -- a type
    """Say in the OpenAPI document what the JSON form holds."""
    return ResponseSpec(shape, description=description, generate_examples=False)
