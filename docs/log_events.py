"""Finds the events of the log in the code, for docs/reference/log-events.md."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ledger.log_events import EVENTS, OF_A_LIBRARY

PACKAGE = Path(__file__).parents[1] / "ledger"

_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
_LOGS = {"log", "_log"}

_HEAD = """\
A line of the log is one of these events, with `level` and `timestamp`; its `request_id` is there
where a request caused it. How lines look: [operating](../operating.md#the-log).

| Event | Level | Meaning, and what to do | Fields |
|---|---|---|---|"""


class Logged(NamedTuple):
    """A call that logs: its event, None if that is not spelled out, and where it is."""

    event: str | None
    level: str
    fields: tuple[str, ...]
    place: str


def logged() -> list[Logged]:
    """Return each call of the package that logs."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (level := _level(node)):
                # `ThrottledLog(_log.warning, event)` is told the fields later.
                event = node.args[-1] if node.args else None
                said = event.value if isinstance(event, ast.Constant) else None
                text = said if isinstance(said, str) else None
                fields = tuple(each.arg for each in node.keywords if each.arg)
                place = f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
                found.append(Logged(text, level, fields, place))
    return found


def log_events() -> Iterator[str]:
    """Return the page's lines: each event with what is known of it."""
    yield _HEAD
    calls = logged()
    for event, meaning in sorted(EVENTS.items(), key=lambda item: item[0].lower()):
        mine = [call for call in calls if call.event == event]
        levels = sorted({"error" if call.level == "exception" else call.level for call in mine})
        if event == OF_A_LIBRARY:
            levels = ["any"]
        fields = dict.fromkeys(f"`{name}`" for call in mine for name in call.fields)
        yield f"| {event} | {', '.join(levels)} | {meaning} | {', '.join(fields)} |"


def _level(call: ast.Call) -> str | None:
    """Return the level at which a call logs, None if it does not."""
    function = call.func
    if isinstance(function, ast.Name) and function.id == "ThrottledLog":
        function = call.args[0]
    if not isinstance(function, ast.Attribute) or function.attr not in _LEVELS:
        return None
    of = function.value
    if isinstance(of, ast.Name) and of.id in _LOGS:
        return function.attr
    direct = isinstance(of, ast.Call) and ast.unparse(of.func) == "structlog.get_logger"
    return function.attr if direct else None
