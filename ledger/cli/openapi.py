"""`ledger openapi`."""

import json
import sys
from pathlib import Path

import rich_click as click

DEFAULT_FOLDER = Path("api_schema")


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write openapi.json and webhook.json into this folder.",
)
@click.option("--check", is_flag=True, help="Compare with the folder; exit 3 if they differ.")
def openapi(*, output: Path | None, check: bool) -> None:
    """Print the OpenAPI document, write it with the webhook's JSON Schema, or compare them."""
    from ledger.api.openapi.document import document, webhook_schema

    made = {
        name: json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        for name, content in (("openapi.json", document()), ("webhook.json", webhook_schema()))
    }
    folder = output or DEFAULT_FOLDER
    if check:
        drifted = [name for name, content in made.items() if _read(folder / name) != content]
        if drifted:
            names = ", ".join(str(folder / name) for name in drifted)
            click.echo(f"{names}: not what the code says; run ledger openapi --output {folder}")
            sys.exit(3)
    elif output:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            (output / name).write_bytes(content)
    else:
        click.echo(made["openapi.json"], nl=False)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
