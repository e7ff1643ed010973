"""Writes the pages of docs/reference from the code; `make reference` runs it, a test compares.

Settings come from the docstrings of `Settings`, commands from their `--help`, HTTP from the OpenAPI
document, errors from both, events of the log from the calls that log them.
"""

import ast
import inspect
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich_click as click

from docs.log_events import log_events
from ledger import cli, errors
from ledger.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("reference")

_NOTE = "*Generated from the code by `make reference`.*\n"

Schema = dict[str, Any]


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{FOLDER} written\n")


def pages() -> dict[str, str]:
    """Return the content of each page by the name of its file."""
    openapi: Schema = json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())
    return {
        "settings.md": _page("Settings", _settings()),
        "commands.md": _page("Commands", _commands()),
        "http.md": _page("HTTP calls", _calls(openapi)),
        "schemas.md": _page("HTTP schemas", _schemas(openapi)),
        "errors.md": _page("Errors", _errors(openapi)),
        "log-events.md": _page("Log events", log_events()),
    }


def _page(title: str, parts: Iterator[str]) -> str:
    return "\n".join([f"# {title}\n", _NOTE, *parts]).rstrip() + "\n"


# Settings


def _settings() -> Iterator[str]:
    yield "[Settings](../settings.md) has them at a glance, and how they work together.\n"
    body = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 -- it is a class
    default = Settings()
    for field, following in zip(body.body, body.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        assert isinstance(following, ast.Expr)  # noqa: S101 -- each field has a docstring
        words = inspect.cleandoc(ast.literal_eval(following.value))
        name = field.target.id
        yield f"## `{PREFIX}{name.upper()}`\n"
        yield f"{words}\n"
        if shown := _default(getattr(default, name)):
            yield f"Default: `{shown}`\n"


def _default(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


# Commands


def _commands() -> Iterator[str]:
    yield (
        "[Command line](../cli.md) has them at a glance. Exit codes: 0 done, 1 failed,"
        " 2 wrong usage, 3 a check found something.\n"
    )
    context = click.Context(cli.ledger, info_name="ledger")
    for name in cli.ledger.list_commands(context):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the framework, by `openapi`
            command = cli.ledger.get_command(context, name)
        assert command is not None  # noqa: S101 -- it was listed
        yield from _command(command, click.Context(command, info_name=name, parent=context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    level = "#" * (1 + context.command_path.count(" "))
    yield f"{level} `{context.command_path}`\n"
    if command.help:
        yield f"{inspect.cleandoc(command.help)}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    options = [option for option in command.params if isinstance(option, click.Option)]
    records = [option.get_help_record(context) for option in options]
    rows = [f"| `{_cell(record[0])}` | {_cell(record[1])} |" for record in records if record]
    if rows:
        yield "\n".join(["| Option | Meaning |", "|---|---|", *rows, ""])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None  # noqa: S101 -- it was listed
            yield from _command(inner, click.Context(inner, info_name=name, parent=context))


# HTTP


def _calls(openapi: Schema) -> Iterator[str]:
    yield (
        "[HTTP](../http.md) has the calls at a glance, and what holds for all of them. The names of"
        " [schemas](schemas.md) are those of [openapi.json](../../api_schema/openapi.json).\n"
    )
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            yield f"## `{method.upper()} {path}`\n"
            yield f"{operation['summary']}.\n"
            if description := operation.get("description"):
                yield f"{description}\n"
            yield f"Needs: {_needs(operation)}.\n"
            yield from _parameters(operation.get("parameters", []), openapi)
            if body := operation.get("requestBody"):
                kinds = [
                    f"{_type(content.get('schema', {}))} as `{kind}`"
                    for kind, content in body["content"].items()
                ]
                words = f" {body['description']}" if "description" in body else ""
                yield f"Body: {', or '.join(kinds)}.{words}\n"
            yield "| Status | Answer |\n|---|---|"
            for status, response in sorted(operation["responses"].items()):
                yield f"| {status} | {_answer(response, openapi)} |"
            yield ""


def _needs(operation: Schema) -> str:
    (tag,) = operation["tags"]
    return {
        "intake": "a webhook token",
        "read": "a key with the scope `read`",
        "operate": "a key with the scope `operate`",
        "admin": "a key with the scope `admin`",
        "service": "nothing",
    }[tag]


def _parameters(parameters: list[Schema], openapi: Schema) -> Iterator[str]:
    if not parameters:
        return
    yield "| Parameter | In | Type | Meaning |\n|---|---|---|---|"
    for each in parameters:
        parameter = _followed(each, openapi)
        needed = ", required" if parameter.get("required") else ""
        yield (
            f"| `{parameter['name']}` | {parameter['in']}{needed} | {_type(parameter['schema'])}"
            f" | {_cell(parameter.get('description', ''))} |"
        )
    yield ""


def _answer(response: Schema, openapi: Schema) -> str:
    found = _followed(response, openapi)
    types = {_type(content.get("schema", {})) for content in found.get("content", {}).values()}
    named = " or ".join(sorted(types - {"Problem", "any"}))
    words = _cell(found["description"].rstrip("."))
    return f"{words}: {named}" if named else words


def _schemas(openapi: Schema) -> Iterator[str]:
    yield "What the [calls](http.md) take and answer.\n"
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        yield f"## {name}\n"
        if description := schema.get("description"):
            yield f"{description}\n"
        required = schema.get("required", [])
        yield "| Property | Type | Meaning |\n|---|---|---|"
        for field, value in schema.get("properties", {}).items():
            optional = "" if field in required else ", optional"
            meaning = _cell(value.get("description", ""))
            yield f"| `{field}` | {_type(value)}{optional} | {meaning} |"
        yield ""


def _followed(value: Schema, openapi: Schema) -> Schema:
    """Return what a reference refers to, anything else as it is."""
    while "$ref" in value:
        found: Any = openapi
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def _type(schema: Schema) -> str:
    """Say in few words what a schema takes."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return name if name == "Problem" else f"[{name}](schemas.md#{name.lower()})"
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[choice]))
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(each).strip(chr(34))}`" for each in schema["enum"])
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(_type({**schema, "type": each}) for each in kind)
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return f"{kind} ({schema['format']})" if kind == "string" and "format" in schema else str(kind)


# Errors


def _errors(openapi: Schema) -> Iterator[str]:
    yield (
        "An error is one sentence that says what happened and what to do: on stderr for a command,"
        " as `detail` of an `application/problem+json` over HTTP.\n"
    )
    yield "## HTTP statuses\n"
    yield "| Status | Meaning | Calls |\n|---|---|---|"
    meanings: dict[str, dict[str, int]] = {}
    for operations in openapi["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    words = _followed(response, openapi)["description"].rstrip(".")
                    counted = meanings.setdefault(status, {})
                    counted[words] = counted.get(words, 0) + 1
    for status, counted in sorted(meanings.items()):
        for words, calls in sorted(counted.items(), key=lambda item: -item[1]):
            yield f"| {status} | {_cell(words)} | {calls} |"
    yield "\n## Kinds of errors\n"
    yield "What the code raises on purpose, in `ledger/errors.py`.\n"
    yield "| Error | When |\n|---|---|"
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and errors.LedgerError in kind.__mro__[1:]:
            first = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
            yield f"| `{name}` | {_cell(first)} |"


def _cell(text: str) -> str:
    """Make text fit into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
