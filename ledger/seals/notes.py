"""Signed notes and checkpoints in the formats of C2SP, which the tools of others read.

A note (c2sp.org/signed-note) is a text, an empty line, and lines with signatures. A checkpoint
(c2sp.org/tlog-checkpoint) is a note whose text has the log's origin, the tree's size and its root.
Ledger adds a line with the time. Keys are written as Go's package `sumdb/note` writes them. Pure.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

from ledger.errors import SealError

_ED25519 = b"\x01"
_DASH = "\u2014"
_NAME = re.compile(r"[^\s+]{1,200}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_TIME = "sealed_at "
_NOTE = re.compile(rf"(?:[^\n]+\n)+\n(?:{_DASH} [^\n]+\n)+")
_KEY_BYTES = 32
_ID_BYTES = 4


class PublicKey(Struct, frozen=True):
    """The name of a log and the key that checks its signatures."""

    name: str
    key: bytes

    @property
    def key_id(self) -> str:
        """The first 4 bytes, in hexadecimal, of the hash of name, algorithm and key."""
        of = self.name.encode() + b"\n" + _ED25519 + self.key
        return sha256(of).digest()[:_ID_BYTES].hex()

    def __str__(self) -> str:
        """Return it as it is given to others: `NAME+ID+KEY`."""
        return f"{self.name}+{self.key_id}+{base64.b64encode(_ED25519 + self.key).decode()}"

    @classmethod
    def read(cls, text: str) -> "PublicKey":
        """Read what `str` writes. Raises `SealError`."""
        parts = text.strip().split("+", 2)
        key = _key_bytes(parts[2]) if len(parts) == 3 else None  # noqa: PLR2004 -- as written
        if key is not None and _NAME.fullmatch(parts[0]):
            found = cls(parts[0], key)
            if found.key_id == parts[1]:
                return found
        raise SealError("this is not a public key of seals: it looks like NAME+ID+KEY")


class SigningKey(Struct, frozen=True):
    """A private key, and the name of the log that it signs for."""

    name: str
    seed: bytes

    def __repr__(self) -> str:
        """Hide the secret."""
        return f"SigningKey({self.name!r})"

    @classmethod
    def new(cls, name: str) -> "SigningKey":
        """Make a key. Raises `SealError` for a name with white space or a plus."""
        if not _NAME.fullmatch(name):
            raise SealError(
                f"{name!r} cannot name a log: a name has 1 to 200 characters, no space and no plus"
            )
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> PublicKey:
        """The key that checks its signatures."""
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        return PublicKey(self.name, private.public_key().public_bytes_raw())

    def to_text(self) -> str:
        """Return the line that a file of a private key holds."""
        seed = base64.b64encode(_ED25519 + self.seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.public.key_id}+{seed}\n"

    @classmethod
    def read(cls, text: str) -> "SigningKey":
        """Read what `to_text` writes. Raises `SealError`, without the secret."""
        prefix, _, rest = text.strip().partition("PRIVATE+KEY+")
        parts = rest.split("+", 2)
        seed = _key_bytes(parts[2]) if not prefix and len(parts) == 3 else None  # noqa: PLR2004 -- as written
        if seed is not None and _NAME.fullmatch(parts[0]):
            found = cls(parts[0], seed)
            if found.public.key_id == parts[1]:
                return found
        raise SealError("it holds no private key as `ledger seal --new-key FILE` makes it")

    def sign(self, text: str) -> str:
        """Return a text as a signed note. The text ends with a line end and has no empty line."""
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        signed = base64.b64encode(bytes.fromhex(self.public.key_id) + signature).decode()
        return f"{text}\n{_DASH} {self.name} {signed}\n"


class Checkpoint(Struct, frozen=True):
    """What a log says of itself: how many events it had at a time, and the root over them."""

    origin: str
    size: int
    root: bytes
    sealed_at: datetime | None

    def to_text(self) -> str:
        """Return the text that is signed."""
        root = base64.b64encode(self.root).decode()
        time = "" if self.sealed_at is None else f"{_TIME}{self.sealed_at:%FT%TZ}\n"
        return f"{self.origin}\n{self.size}\n{root}\n{time}"


def read_checkpoint(note: str) -> Checkpoint:
    """Read a checkpoint without a look at its signatures. Raises `SealError`."""
    lines = note.partition("\n\n")[0].split("\n")
    try:
        origin, size, root = lines[:3]
        hashed = _from_base64(root)
    except ValueError:
        raise SealError("this is not a checkpoint: it lacks origin, size and root") from None
    if not _SIZE.fullmatch(size) or len(hashed) != sha256().digest_size or not origin:
        raise SealError("this is not a checkpoint: its size or its root cannot be read")
    times = [line.removeprefix(_TIME) for line in lines[3:] if line.startswith(_TIME)]
    return Checkpoint(origin, int(size), hashed, _time(times[0]) if times else None)


def is_signed_by(note: str, key: PublicKey) -> bool:
    """Return whether a note has a good signature of a key."""
    text, _, signatures = note.partition("\n\n")
    for line in signatures.splitlines():
        words = line.split(" ")
        if len(words) != 3 or words[:2] != [_DASH, key.name]:  # noqa: PLR2004 -- dash, name, signature
            continue
        try:
            signed = _from_base64(words[2])
            if signed[:_ID_BYTES].hex() == key.key_id:
                public = Ed25519PublicKey.from_public_bytes(key.key)
                public.verify(signed[_ID_BYTES:], f"{text}\n".encode())
                return True
        except (binascii.Error, InvalidSignature):
            continue
    return False


def notes_in(text: str) -> Iterator[str]:
    """Yield the notes of a file in their order; one that was not written to its end is left out."""
    for match in _NOTE.finditer(text):
        yield match[0]


def _from_base64(text: str) -> bytes:
    """Decode the one spelling that encodes its bytes. Raises `binascii.Error` for any other."""
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise binascii.Error("bits that mean nothing are set")
    return decoded


def _key_bytes(text: str) -> bytes | None:
    try:
        decoded = _from_base64(text)
    except binascii.Error:
        return None
    is_key = decoded[:1] == _ED25519 and len(decoded) == 1 + _KEY_BYTES
    return decoded[1:] if is_key else None


def _time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
