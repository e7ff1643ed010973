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
        tree = ast.parse(path.read_text(encoding="utf-8"))
        throttled = _fields_of_throttled(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (level := _level(node)):
                event = node.args[-1] if node.args else None
                said = event.value if isinstance(event, ast.Constant) else None
                text = said if isinstance(said, str) else None
                fields = throttled.get(node, _fields(node))
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


def _fields(call: ast.Call) -> tuple[str, ...]:
    return tuple(each.arg for each in call.keywords if each.arg)


def _fields_of_throttled(tree: ast.Module) -> dict[ast.expr, tuple[str, ...]]:
    """Return the fields of each `self.x = ThrottledLog(...)`, which it is told at `self.x(...)`."""
    nodes = list(ast.walk(tree))
    calls = [each for each in nodes if isinstance(each, ast.Call)]
    found = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and _is_throttled(node.value):
            name = ast.unparse(node.targets[0])
            told = [_fields(call) for call in calls if ast.unparse(call.func) == name]
            found[node.value] = ("times", *dict.fromkeys(field for each in told for field in each))
    return found


def _is_throttled(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "ThrottledLog"


def _level(call: ast.Call) -> str | None:
    """Return the level at which a call logs, None if it does not."""
    function = call.func
    if _is_throttled(call):
        function = call.args[0]
    if not isinstance(function, ast.Attribute) or function.attr not in _LEVELS:
        return None
    of = function.value
    if isinstance(of, ast.Name) and of.id in _LOGS:
        return function.attr
    direct = isinstance(of, ast.Call) and ast.unparse(of.func) == "structlog.get_logger"
    return function.attr if direct else None
