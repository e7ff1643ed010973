"""What a check found."""

from typing import Literal

from msgspec import Struct

Verdict = Literal["ok", "unknown", "warning", "wrong"]
"""`wrong` loses or hides something, now or at the next failure. `warning` may. `unknown` is what
cannot be seen from here."""


class Finding(Struct, frozen=True):
    """One sentence about one thing, and what to do about it if it is not ok."""

    check: str
    verdict: Verdict
    words: str
    advice: str = ""


def ok(check: str, words: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(check, "ok", words)


def unknown(check: str, words: str, advice: str = "") -> Finding:
    """Return that something cannot be known."""
    return Finding(check, "unknown", words, advice)


def warning(check: str, words: str, advice: str) -> Finding:
    """Return that something may go wrong."""
    return Finding(check, "warning", words, advice)


def wrong(check: str, words: str, advice: str) -> Finding:
    """Return that something is wrong."""
    return Finding(check, "wrong", words, advice)
