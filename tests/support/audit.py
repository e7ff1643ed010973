"""Compares the pinned dependencies with the advisories about them. Run `make audit`.

An audit that could not ask about every package proves nothing, so it fails and says so.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements-run.lock", "requirements.lock")


def faults(lock: str, report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each advisory, and one if packages could not be asked about."""
    packages = report["dependencies"]
    found = [
        f"{lock}: {package['name']} {package['version']} has {advisory['id']}, "
        f"fixed in {', '.join(advisory['fix_versions']) or 'no version yet'}"
        for package in packages
        for advisory in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped or not packages:
        found.append(
            f"{lock}: {len(skipped)} of {len(packages)} packages could not be audited "
            f"({', '.join(skipped[:3])}, ...): the advisory database was not reached, or does not "
            "know them. This is no result; run it again where it can be reached"
        )
    return found


def audit(lock: str) -> list[str]:
    """Return what is wrong with the packages of a lock file."""
    options = ["--requirement", lock, "--require-hashes", "--disable-pip", "--format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, "--progress-spinner", "off"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    try:
        return faults(lock, json.loads(done.stdout))
    except ValueError:
        said = done.stderr.strip().splitlines() or ["pip-audit said nothing"]
        return [f"{lock}: the advisory database could not be asked: {said[-1]}"]


def main() -> int:
    """Print what is wrong with all lock files, and return the exit code."""
    found = [fault for lock in LOCKS for fault in audit(lock)]
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    if not found:
        sys.stdout.write(f"no advisory about the packages of {' and '.join(LOCKS)}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
