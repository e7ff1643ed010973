"""What spool and sealer cost the intake: `python -m benchmarks.protection [ROUNDS [SECONDS]]`.

Needs wrk. Servers take turns, in the other order in every other round: one without a spool, one
with it; then each beside a projector, without and with the spool, seals that are signed every five
seconds and published. The ratios are taken within a round, so that what else the machine does hits
both alike.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import stage, wrk
from benchmarks.row import ratios
from benchmarks.together import until_followed
from benchmarks.wrk import Load
from ledger.seals.key_file import make_key_file

ROUNDS = 8
SECONDS = 5
PAIRS = {
    "the spool": ("bare", "spool"),
    "spool and sealer, beside a projector": ("projector", "projector, spool, sealer"),
}
CASES = [name for pair in PAIRS.values() for name in pair]


@contextmanager
def running(url: str, case: str, folder: Path) -> Iterator[str]:
    """Run the processes of a case; yield the address of its server."""
    spool = {"LEDGER_SPOOL_DIR": str(folder / "spool")} if "spool" in case else {}
    seal = {"LEDGER_SEAL_INTERVAL": "86400"}
    if "sealer" in case:
        seal = {
            "LEDGER_SEAL_KEY": str(folder / "key"),
            "LEDGER_SEAL_PUBLISH": str(folder / "checkpoints"),
            "LEDGER_SEAL_INTERVAL": "5",
        }
    with stage.ledger_serve(url, more=spool) as (address, _):
        if "projector" not in case:
            yield address
            return
        with stage.ledger_project(url, more=seal):
            wrk.send(address, 1, "first")
            until_followed(url)
            yield address


def main(rounds: int, seconds: int) -> None:
    """Measure the cases in turn and print the medians of the ratios."""
    wrk.check()
    loads: dict[str, list[Load]] = {case: [] for case in CASES}
    with stage.postgres() as server, tempfile.TemporaryDirectory(prefix="ledger-bench-") as name:
        folder = Path(name)
        make_key_file(folder / "key", "benchmark")
        for turn in range(rounds):
            for case in CASES if turn % 2 == 0 else reversed(CASES):
                url = stage.new_database(server, "protection")
                with running(url, case, folder) as address:
                    loads[case].append(wrk.send(address, seconds, f"{case}{turn}"))
                stage.drop_database(server, "protection")
    for what, (without, with_it) in PAIRS.items():
        for unit, index in (("events/s", 0), ("p99 in ms", 1)):
            before = [load[index] for load in loads[without]]
            after = [load[index] for load in loads[with_it]]
            each = ratios(after, before)
            print(
                f"{what}: {unit} {statistics.median(after):,.1f} against"
                f" {statistics.median(before):,.1f}, ratio {statistics.median(each):.3f}"
                f" ({min(each):.2f} to {max(each):.2f}, {rounds} rounds)"
            )


if __name__ == "__main__":
    numbers = [int(given) for given in sys.argv[1:]]
    main(*numbers, *[ROUNDS, SECONDS][len(numbers) :])
