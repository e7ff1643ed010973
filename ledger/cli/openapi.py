"""`ledger openapi`."""

import json
import sys
from pathlib import Path

import rich_click as click

from ledger.api.openapi.document import document, webhook_schema

DEFAULT_FOLDER = Path("api_schema")


@click.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write openapi.json and webhook.json into this folder.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Compare with the files in DIR, by default api_schema; exit 3 if they differ.",
)
def openapi(*, output: Path | None, check: bool) -> None:
    """Print, write or check the OpenAPI document.

    With --output, the JSON Schema of a webhook is written or compared as well.
    """
    made = {
        name: json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        for name, content in (("openapi.json", document()), ("webhook.json", webhook_schema()))
    }
    folder = output or DEFAULT_FOLDER
    if check:
        if not folder.is_dir():
            raise click.UsageError(
                f"there is no folder {folder} in {Path.cwd()}: run this in a checkout of Ledger, "
                "or name the folder with --output DIR"
            )
        drifted = [name for name, content in made.items() if _read(folder / name) != content]
        if drifted:
            names = ", ".join(str(folder / name) for name in drifted)
            click.echo(f"{names}: differs from the code; run `ledger openapi --output {folder}`")
            sys.exit(3)
    elif output:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            (output / name).write_bytes(content)
    else:
        click.echo(made["openapi.json"], nl=False)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
