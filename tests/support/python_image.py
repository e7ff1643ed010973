"""A base image for tests, made of this machine's own Python: CI reaches no registry of images."""

import io
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
from pathlib import Path

NAME = "local/python"

_TOOLS = ("dash", "find", "mkdir", "rm")
"""What the build stage runs; the image itself needs no shell."""

_MORE_LIBRARIES = (
    "libgcc_s.so.1",
    "libstdc++.so.6",
    *(f"lib{name}.so.*" for name in ("rt", "dl", "util", "pthread", "resolv")),
    "libnss_files.so.2",
    "libnss_dns.so.2",
)
"""What slim images have, for compiled code and for names of hosts."""

_LEFT_OUT = {"test", "idlelib", "tkinter", "lib2to3", "turtledemo", "site-packages", "__pycache__"}
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def make_base_image() -> str:
    """Import the image into the container engine, and return its name."""
    archive = io.BytesIO()
    # Links to what is left out become files.
    with tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
        _add_python(tar)
        _add_folder(tar, "tmp", mode=0o1777)
        authorities = ssl.get_default_verify_paths().cafile
        if authorities:
            tar.add(Path(authorities).resolve(), _CERTIFICATES)
    where = f"/{_CERTIFICATES}"
    environment = (
        "PATH=/usr/local/bin:/usr/bin:/bin",
        f"SSL_CERT_FILE={where}",
        f"PIP_CERT={where}",
    )
    changes = [word for line in environment for word in ("--change", f"ENV {line}")]
    done = subprocess.run(
        ["docker", "import", *changes, "-", NAME],  # noqa: S607 -- whichever the PATH has
        input=archive.getvalue(),
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return NAME


def _add_python(tar: tarfile.TarFile) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sys.base_prefix) / "lib" / version
    interpreter = Path(sys.base_prefix) / "bin" / version
    binaries = [interpreter.resolve(), *(library / "lib-dynload").glob("*.so")]
    tar.add(interpreter.resolve(), f"usr/local/bin/{version}")
    for name in ("python3", "python"):
        _add_link(tar, f"usr/local/bin/{name}", version)
    tar.add(library, f"usr/local/lib/{version}", filter=_without_what_slim_images_lack)
    _add_folder(tar, f"usr/local/lib/{version}/site-packages")
    for name in _TOOLS:
        tool = Path(shutil.which(name) or name).resolve()
        tar.add(tool, f"bin/{name}")
        binaries.append(tool)
    _add_link(tar, "bin/sh", "dash")
    libraries = _libraries_of(binaries)
    for name in _MORE_LIBRARIES:
        libraries |= {*Path("/usr/lib").glob(f"*/{name}"), *Path("/usr/lib64").glob(name)}
    for shared in sorted(libraries):
        tar.add(shared.resolve(), str(shared).lstrip("/"))


def _without_what_slim_images_lack(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(entry.name).parts
    is_left_out = _LEFT_OUT & {*parts} or any(part.startswith("config-") for part in parts)
    return None if is_left_out else entry


def _libraries_of(binaries: list[Path]) -> set[Path]:
    done = subprocess.run(
        ["ldd", *map(str, binaries)],  # noqa: S607 -- whichever the PATH has
        capture_output=True,
        text=True,
        check=False,
    )
    return {Path(path) for path in re.findall(r"(/[^\s:]+\.so\S*)(?= \()", done.stdout)}


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _add_folder(tar: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)
