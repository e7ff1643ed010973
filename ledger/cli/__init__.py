"""The command line `ledger`: one module per command, loaded when the command is called."""

import difflib
import importlib
import sys
from typing import NoReturn

import psycopg
import rich_click as click
from click.shell_completion import CompletionItem

from ledger import __version__
from ledger.errors import LedgerError, one_line
from ledger.model.json_text import is_encodable

COMMANDS = {
    "up": "Run everything on an embedded PostgreSQL until stopped.",
    "serve": "Serve the intake and the API until stopped.",
    "project": "Fold new events into the state until stopped.",
    "migrate": "Prepare an empty database, or bring an older one to this version.",
    "distribute": "Distribute the log over the nodes of a Citus cluster.",
    "rebuild": "Rebuild the state from the log while readers are served.",
    "verify": "Prove that the log is complete and that the state equals the fold.",
    "seal": "Seal the log now, or make a key that signs its checkpoints.",
    "archive": "Write what is sealed to Parquet files, or check an archive.",
    "prove": "Write a proof that an event is in the log, for who has no Ledger.",
    "reconcile": "Report missing events, or ask support for them.",
    "request": "List support requests, or show or close one.",
    "missing": "List missing events, the one missing longest first.",
    "waive": "Waive missing events that will not be asked for.",
    "bill": "Show a bill: state, reports, missing events, findings, events.",
    "events": "List the event log, or only its unreadable events.",
    "erase": "Erase the body of an event that is not folded.",
    "labs": "List the labs, and whether they are silent.",
    "windows": "List loss windows, or close one.",
    "keys": "Create, list, rotate or revoke API keys.",
    "import": "Append events from a file to the log.",
    "export": "Write the log, or a part of it, to a file that `import` reads.",
    "tokens": "Create, list or revoke webhook tokens.",
    "flabs": "Look after the account at Flabs: labs, subscriptions, the token.",
    "refused": "List, show, accept or drop deliveries refused for their token.",
    "doctor": "Look at everything that an installation can have wrong, and say what to do.",
    "status": "Show how far the state is behind the log, and which bills are parked.",
    "simulate": "Send a simulated lab day to a receiver, with faults.",
    "openapi": "Print, write or check the OpenAPI document.",
}
"""Each command's line in `ledger --help`, in the order of the list. Written here, so that the list
does not load the commands' modules, which takes seconds."""

_MODULES = {"import": "import_"}
"""Modules whose command's name is a keyword of Python."""

_ONLY_SUMMARIES = "ledger.only_summaries"


class _Commands(click.RichGroup):
    """Loads the module of a command when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if ctx.meta.get(_ONLY_SUMMARIES):
            return click.RichCommand(name=cmd_name, short_help=COMMANDS[cmd_name])
        name = _MODULES.get(cmd_name, cmd_name)
        command = getattr(importlib.import_module(f"ledger.cli.{name}"), name)
        assert isinstance(command, click.Command)  # noqa: S101 -- true of each command's module
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"commands are {', '.join(COMMANDS)}"
            ctx.fail(f"there is no command {name!r}: {hint}")
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        ctx.meta[_ONLY_SUMMARIES] = True
        return super().get_help(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        ctx.meta[_ONLY_SUMMARIES] = True
        return super().shell_complete(ctx, incomplete)


COMPLETION = """\
Completion of commands and options: eval "$(_LEDGER_COMPLETE=bash_source ledger)" in bash;
zsh_source and fish_source are for zsh and fish.
"""


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=COMPLETION,
)
@click.version_option(__version__, prog_name="ledger")
def ledger() -> None:
    """Keep every webhook of Flabs, fold them into bills, and prove which events never came.

    Settings come from the environment: LEDGER_DATABASE_URL, LEDGER_WEBHOOK_TOKENS, ...
    docs/settings.md lists them. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check found
    something.
    """


def main() -> NoReturn:
    """Run a command and exit; an expected error is one line on stderr and not a traceback."""
    for argument in sys.argv[1:]:
        if not is_encodable(argument):  # bytes that are not text in the terminal's encoding
            _fail(f"{argument!a} is not UTF-8", 2)
    try:
        code = ledger.main(prog_name="ledger", standalone_mode=False)
    except click.UsageError as error:
        _fail(_with_help(error), error.exit_code)
    except click.ClickException as error:
        _fail(one_line(error.format_message()), error.exit_code)
    except click.Abort:
        _fail("interrupted", 1)
    except LedgerError as error:
        _fail(str(error), 1)
    except psycopg.Error as error:
        _fail(f"the database refused or was lost: {one_line(error)}", 1)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _with_help(error: click.UsageError) -> str:
    """Return the message of a wrong usage in the form of all other errors, with where to look."""
    words = one_line(error.format_message()).rstrip(".")
    command = error.ctx.command_path if error.ctx else "ledger"
    return f"{words[:1].lower()}{words[1:]} (`{command} --help` explains the usage)"


def _fail(sentence: str, code: int) -> NoReturn:
    click.echo(f"ledger: {sentence}", err=True)
    sys.exit(code)
