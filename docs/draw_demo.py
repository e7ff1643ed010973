"""Draws docs/demo.svg from the output of a real `ledger up --demo`; `make demo-picture` runs it."""

import io
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("demo.svg")
PORT = "8471"
WIDTH = 112


def main() -> None:
    """Run the demo until it waits for Ctrl-C, stop it, and draw what it printed."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ledger", "up", "--demo", "--data", f"{folder}/data"]
        with subprocess.Popen(  # our own command
            [*command, "--port", PORT],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as demo:
            assert demo.stdout  # noqa: S101 -- a pipe, as asked for
            for line in demo.stdout:
                lines.append(line.rstrip().replace(folder, "."))
                if line.startswith("Running."):
                    demo.send_signal(signal.SIGINT)
    # Addresses and secrets before and after are not for a picture.
    begin = next(n for n, line in enumerate(lines) if line.startswith("Registering"))
    end = next(n for n, line in enumerate(lines) if line.startswith("The letter to support"))
    shown = lines[begin:end]
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ make demo", style="bold"))
    for line in shown:
        console.print(Text(line))
    PICTURE.write_text(console.export_svg(title="make demo"), encoding="utf-8")


if __name__ == "__main__":
    main()
