"""Finds the events that Ledger logs: each call of a logger with a constant text, in all modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "ledger"

LEVELS = {"debug", "info", "warning", "error", "exception"}
_EVERYWHERE = {"exc_info"}


def rows() -> Iterator[str]:
    """Yield a row of Markdown for each event: its text, level, fields and module."""
    yield "| Event | Level | Fields | Module |\n|---|---|---|---|"
    found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for module in sorted(PACKAGE.rglob("*.py")):
        name = module.relative_to(PACKAGE.parent).as_posix()
        for call in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and (event := _event(call)):
                fields, modules = found.setdefault(event, (set(), set()))
                fields |= {word.arg for word in call.keywords if word.arg} - _EVERYWHERE
                modules.add(name)
    for (text, level), (fields, modules) in sorted(found.items()):
        words = ", ".join(f"`{field}`" for field in sorted(fields))
        places = ", ".join(f"`{module}`" for module in sorted(modules))
        yield f"| {text} | {level} | {words} | {places} |"
    yield ""


def _event(call: ast.Call) -> tuple[str, str] | None:
    """Return the text and the level of a call, None if it is no call of a logger."""
    method = call.func
    if not isinstance(method, ast.Attribute) or method.attr not in LEVELS or not call.args:
        return None
    if not ast.unparse(method.value).rpartition(".")[2].lstrip("_").startswith(("log", "get_log")):
        return None
    text = call.args[0]
    level = "error" if method.attr == "exception" else method.attr
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return text.value, level
    if isinstance(text, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "..." for part in text.values)
        return "".join(map(str, parts)), level
    return None
