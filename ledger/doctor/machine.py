"""Checks of this environment and machine: settings, secrets, certificate, spool, keys."""

import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from ledger.certificates import end_of_certificate
from ledger.doctor.findings import Finding, ok, unknown, warning, wrong
from ledger.errors import SettingsError
from ledger.intake.tls import Certificate
from ledger.operations.render.words import count, lasting
from ledger.seals.key_file import read_key_file
from ledger.setting_values import OFF, Address, is_loopback
from ledger.settings import Settings
from ledger.spool.folder import SET_ASIDE, set_aside_in, waiting_in

CERTIFICATE_WARNING = timedelta(days=21)
"""Before its end; who renews by ACME has done so by then."""

LEAST_FREE = 1024**3
"""Bytes that a disk should have free."""


def check_machine(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Check all of it. Reads files; changes nothing."""
    yield from _check_secrets(settings)
    yield from _check_addresses(settings)
    yield from _check_certificate(settings, now)
    yield from _check_spool(settings, now)
    yield _check_seal_key(settings)
    if settings.alert_urls:
        yield ok("alerts", f"{count(len(settings.alert_urls), 'address', 'addresses')} get alerts")
    else:
        yield warning("alerts", "no alert is sent to anybody", "set LEDGER_ALERT_URLS")


def _check_secrets(settings: Settings) -> Iterator[Finding]:
    weak = settings.weak_secrets()
    for sentence in weak:
        fault, _, advice = sentence.partition(": ")
        yield wrong("secrets", fault, advice)
    if not weak:
        yield ok("secrets", "no secret of the settings is easily guessed")


def _check_addresses(settings: Settings) -> Iterator[Finding]:
    try:
        served = [address for address in settings.addresses() if address != OFF]
        settings.status_address()
        encrypted = settings.tls_files() is not None
        settings.check_spool()
    except SettingsError as error:
        yield wrong("settings", str(error), "`ledger serve` refuses to start until it is mended")
        return
    shown = " and ".join(sorted({str(address) for address in served}))
    if encrypted or settings.trusted_proxies or all(map(_is_private, served)):
        yield ok("addresses", f"`ledger serve` listens at {shown}")
    else:
        yield warning(
            "addresses",
            f"`ledger serve` listens at {shown} without TLS, and no proxy is trusted",
            "set LEDGER_TLS_CERTIFICATE and LEDGER_TLS_KEY, or put a proxy with TLS in front "
            "and name it in LEDGER_TRUSTED_PROXIES: tokens and keys travel in the open otherwise",
        )


def _is_private(address: Address) -> bool:
    return is_loopback(address.host)


def _check_certificate(settings: Settings, now: datetime) -> Iterator[Finding]:
    try:
        files = settings.tls_files()
        if files is None:
            return
        Certificate(*files)
        ends = end_of_certificate(files[0])
    except SettingsError as error:
        words, _, _ = str(error).partition(". ")
        advice = "both are PEM files of one pair, the key without a password"
        yield wrong("certificate", words, advice)
        return
    except (OSError, ValueError) as error:
        yield wrong(
            "certificate", f"{settings.tls_certificate} cannot be read: {error}", "write it again"
        )
        return
    left = ends - now
    words = f"{files[0]} ends on {ends:%F}"
    if left <= timedelta():
        yield wrong("certificate", words, "renew it: Flabs refuses to deliver to it")
    elif left <= CERTIFICATE_WARNING:
        yield warning("certificate", f"{words}, in {lasting(left)}", "renew it")
    else:
        yield ok("certificate", words)


def _check_spool(settings: Settings, now: datetime) -> Iterator[Finding]:
    spool = settings.spool_dir
    if spool is None:
        yield warning(
            "spool",
            "deliveries are refused while the database is away",
            "set LEDGER_SPOOL_DIR to a folder on a disk that survives a restart",
        )
        return
    try:
        yield from _look_at_spool(spool, settings.spool_max_bytes, now)
    except OSError as error:
        yield wrong(
            "spool",
            f"{spool} cannot be looked at: {error.strerror or error}",
            "give it to the user who runs `ledger serve`",
        )


def _look_at_spool(spool: Path, most: int, now: datetime) -> Iterator[Finding]:
    existing = next((each for each in (spool, *spool.parents) if each.exists()), Path("/"))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield wrong(
            "spool",
            f"{spool} is no folder that this user can write to",
            "give it to the user who runs `ledger serve`",
        )
        return
    yield from _check_space("spool", existing, needed=most, reserved=spool)
    waiting = waiting_in(spool)
    if waiting.deliveries:
        words = f"{count(waiting.deliveries, 'delivery', 'deliveries')} wait in {spool}"
        since = f", the oldest for {lasting(now - waiting.oldest)}" if waiting.oldest else ""
        yield warning(
            "spool",
            words + since,
            "`ledger serve` moves them to the log once the database takes deliveries",
        )
    if aside := set_aside_in(spool):
        yield wrong(
            "spool",
            f"{count(aside, 'record')} of {spool} could not be moved to the log",
            f"look at the files in {spool / SET_ASIDE}: docs/operating.md says what they are",
        )


def _check_space(check: str, folder: Path, *, needed: int, reserved: Path) -> Iterator[Finding]:
    """Check that a disk has room; what `reserved` holds already counts as room for it."""
    free = shutil.disk_usage(folder).free
    held = sum(file.stat().st_blocks * 512 for file in _files(reserved))
    if free + held < needed:
        yield wrong(
            check,
            f"the disk of {reserved} has {_size(free)} free; the spool may take {_size(needed)}",
            "make room, or lower LEDGER_SPOOL_MAX_BYTES",
        )
    else:
        yield ok(check, f"{reserved} may take {_size(needed)}; its disk has {_size(free)} free")


def _files(folder: Path) -> Iterator[Path]:
    return (each for each in folder.rglob("*") if each.is_file()) if folder.exists() else iter(())


def check_disk(folder: Path, size: int) -> Finding:
    """Check the disk that holds the database, if it is one of this machine."""
    usage = shutil.disk_usage(folder)
    words = f"the database has {_size(size)}; its disk has {_size(usage.free)} free"
    advice = "make room: PostgreSQL stops taking deliveries when its disk is full"
    if usage.free < LEAST_FREE / 4:
        return wrong("disk", words, advice)
    if usage.free < max(LEAST_FREE, usage.total // 20):
        return warning("disk", words, advice)
    return ok("disk", words)


def unknown_disk(size: int) -> Finding:
    """Return that the database's disk is not one of this machine."""
    return unknown(
        "disk",
        f"the database has {_size(size)}; how much its disk has free cannot be seen from here",
        "watch it on the database's machine",
    )


def _size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:  # noqa: PLR2004 -- of binary units
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def _check_seal_key(settings: Settings) -> Finding:
    if settings.seal_key is None:
        return warning(
            "seal key",
            "no checkpoint of the log is signed",
            "make a key with `ledger seal --new-key FILE --name NAME`, and set LEDGER_SEAL_KEY to "
            "the file",
        )
    try:
        key = read_key_file(settings.seal_key)
    except SettingsError as error:
        return wrong("seal key", str(error), "mend the file: nothing is signed until then")
    if settings.seal_publish is None:
        return warning(
            "seal key",
            f"{key.public.name} signs, and the checkpoints stay in the database alone",
            "set LEDGER_SEAL_PUBLISH to where who can change the database cannot write",
        )
    return ok("seal key", f"{key.public.name} signs, and checkpoints go to {settings.seal_publish}")
