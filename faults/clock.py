"""The clock of the server is set back and forth, by a library that is preloaded into it."""

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from faults.fault import fault
from faults.load import RECORDED, Load
from faults.processes import drain
from faults.world import World

SOURCE = Path(__file__).with_name("clock.c")
STEPS = 3


def _no_clock(_disk: Path) -> str | None:
    if sys.platform != "linux":
        return "only Linux lets a library stand for the clock so"
    return None if shutil.which("cc") else "there is no C compiler"


def _set(path: Path, seconds: int) -> None:
    with path.open("r+b") as file:  # mapped by the server, so it must stay the same file
        file.write(struct.pack("=q", seconds))


@fault("clock-stepped", reason=_no_clock, moves_clock=True)
def _clock_stepped(world: World, load: Load, random: Random) -> Iterator[None]:
    """The server's clock is set back and forth, while it records and while it spools."""
    library, offset = world.folder / "clock.so", world.folder / "clock"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)  # whichever the PATH has
    offset.write_bytes(bytes(8))
    world.server.settings.update({"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)})
    try:
        _restart(world)
        for _ in range(STEPS):
            load.wait_for(10, RECORDED)
            _set(offset, random.randrange(-7_200, 7_200))
            load.wait_for(10, RECORDED)
            drain(world, load)
            _set(offset, random.randrange(-120, 120))
        yield
    finally:
        del world.server.settings["LD_PRELOAD"], world.server.settings["CLOCK_OFFSET"]
        _restart(world)


def _restart(world: World) -> None:
    world.server.serve.terminate()
    world.server.start_server()
