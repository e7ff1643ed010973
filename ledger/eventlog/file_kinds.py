"""Names what a file seems to be that is not JSON, so that a refusal can say it."""

import re
from collections.abc import Iterable

_MAGIC = (
    (b"PK\x03\x04", "a zip archive inside another archive"),
    (b"\x1f\x8b", "a gzip file inside another archive"),
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet, document or mail of Microsoft Office (.xls, .doc, .msg)"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"PGDMP", "a dump of pg_dump"),
)
_TAR_AT, _TAR = 257, b"ustar"


def of_bytes(begin: bytes) -> str | None:
    """Name a file by its first bytes; None if they are of no kind that is known here."""
    if begin[_TAR_AT:].startswith(_TAR):
        return "a tar archive"
    return next((kind for magic, kind in _MAGIC if begin.startswith(magic)), None)


def of_zip(names: Iterable[str]) -> str | None:
    """Name a document that is a zip archive of these members; None for any other archive."""
    members = set(names)
    if "[Content_Types].xml" in members:
        folders = {name.partition("/")[0] for name in members}
        if "xl" in folders:
            return "a spreadsheet (.xlsx)"
        return "a document or presentation of Microsoft Office (.docx, .pptx)"
    if "mimetype" in members:
        return "an OpenDocument spreadsheet or document (.ods, .odt)"
    return None


def of_text(begin: bytes) -> str:
    """Name text by its beginning, without white space before it."""
    text = begin.decode(errors="replace")
    for pattern, kind in _TEXTS:
        if pattern.search(text):
            return kind
    first, *others = text.splitlines() or [""]
    for separator in ",;\t|":
        cells = first.count(separator)
        if cells and all(line.count(separator) >= cells for line in others[:1]):
            return "a table (CSV)"
    return "plain text"


_TEXTS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), kind)
    for pattern, kind in (
        (r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", "a binary file"),
        (r"\A<(?:!doctype html|html|head|body|div|p|table|meta)\b", "an HTML page"),
        (r"\A<", "an XML document"),
        (r"^> ?", "a mail that quotes another"),
        (r"\A(?:From|To|Subject|Date|Received|Return-Path|MIME-Version):? ", "a mail with headers"),
    )
)
