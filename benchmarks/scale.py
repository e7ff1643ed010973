"""Row 11: time and memory of a rebuild of four times as many events."""

from benchmarks.rebuild import Rebuilt, rebuild
from benchmarks.row import Figure, Row, Run, Target, ratios

_MEBIBYTE = 1024 * 1024


def measure(run: Run) -> list[Row]:
    """Rebuild the one log and the other in turn."""
    few = run.size(1_000_000, 40_000)
    sizes = {"few": few, "many": 4 * few}
    made: dict[str, list[Rebuilt]] = {name: [] for name in sizes}
    for _, name in run.turns(list(sizes), long=True):
        made[name].append(rebuild(run.logs.url(sizes[name]), processes=2))
    seconds = {name: [one.seconds for one in made[name]] for name in sizes}
    largest = {name: [max(one.peaks.values()) / _MEBIBYTE for one in made[name]] for name in sizes}
    total = {name: [sum(one.peaks.values()) / _MEBIBYTE for one in made[name]] for name in sizes}
    what = f"rebuild of {4 * few:,} events, two processes"
    return [
        Row(
            number="11 time",
            what=f"{what}: time",
            against=f"of {few:,}",
            target=Target(at_most=4.4),
            values=ratios(seconds["many"], seconds["few"]),
            figures=_figures(sizes, seconds, "s"),
        ),
        Row(
            number="11 memory",
            what=f"{what}: peak memory of the largest process",
            against=f"of {few:,}",
            target=Target(at_most=1.1),
            values=ratios(largest["many"], largest["few"]),
            figures=[
                *_figures(sizes, largest, "MiB"),
                Figure("ratio of all processes together", ratios(total["many"], total["few"]), ""),
                *_figures(sizes, total, "MiB of all together"),
            ],
            remarks=["Ledger's own processes, by the kernel's VmHWM; PostgreSQL's are not in it."],
        ),
    ]


def _figures(sizes: dict[str, int], values: dict[str, list[float]], unit: str) -> list[Figure]:
    return [Figure(f"{sizes[name]:,} events", values[name], unit) for name in sizes]
