#!/usr/bin/env python3
"""Checks a proof that `ledger prove` wrote, without Ledger and without its database.

    python3 check_proof.py PROOF --key PUBLIC_KEY

Needs Python 3.11 and the package `cryptography`. PUBLIC_KEY is the line that
`ledger seal --public-key` prints; get it from the operator of the log another way than the proof.
Exits with 0 if the proof holds and with 1 if it does not. Hashes are those of RFC 6962, checkpoints
those of C2SP.
"""

import argparse
import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_ED25519 = b"\x01"
_DASH = "\u2014"
_EMPTY_ROOT = sha256(b"").digest()


class WrongError(Exception):
    """The proof does not hold; the message says why."""


def node(left: bytes, right: bytes) -> bytes:
    """Hash an inner node."""
    return sha256(b"\x01" + left + right).digest()


def from_base64(text: str) -> bytes:
    """Decode the one spelling that encodes its bytes."""
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise WrongError(f"{text!r} is not base64 as it is written")
    return decoded


def read_note(note: str, key: str) -> tuple[int, bytes, list[str]]:
    """Check the signature of a checkpoint; return its size, its root and further lines."""
    name, key_id, public = key.strip().split("+", 2)
    raw = from_base64(public)
    if raw[:1] != _ED25519 or sha256(f"{name}\n".encode() + raw).digest()[:4].hex() != key_id:
        raise WrongError("the public key is not one of seals: NAME+ID+KEY")
    text, _, signatures = note.partition("\n\n")
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        signer, _, signed = rest.partition(" ")
        content = from_base64(signed)
        if (dash, signer, content[:4].hex()) != (_DASH, name, key_id):
            continue
        try:
            Ed25519PublicKey.from_public_bytes(raw[1:]).verify(content[4:], f"{text}\n".encode())
        except InvalidSignature:
            break
        origin, size, root, *more = text.split("\n")
        if origin != name:
            raise WrongError(f"the checkpoint is of {origin} and the key of {name}")
        return int(size), from_base64(root), more
    raise WrongError("the checkpoint has no good signature of this key")


def check_inclusion(index: int, size: int, leaf: bytes, path: list[bytes], root: bytes) -> None:
    """Check that a leaf is in a tree (RFC 9162, 2.1.3.2)."""
    place, last, found = index, size - 1, leaf
    good = 0 <= index < size
    for other in path:
        good = good and last > 0
        if place & 1 or place == last:
            found = node(other, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = node(found, other)
        place, last = place >> 1, last >> 1
    if not good or last or found != root:
        raise WrongError("the event is not in the log of the checkpoint")


def check_consistency(  # noqa: C901 -- the algorithm of the RFC in one piece
    old: int, new: int, old_root: bytes, new_root: bytes, path: list[bytes]
) -> None:
    """Check that a tree begins with another (RFC 9162, 2.1.4.2)."""
    wrong = WrongError("the log of the new checkpoint does not begin with that of the old one")
    if not 0 <= old <= new:
        raise wrong
    if old in (0, new):
        if path or old_root != (_EMPTY_ROOT if old == 0 else new_root):
            raise wrong
        return
    hashes = [old_root, *path] if old & (old - 1) == 0 else path
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not hashes:
        raise wrong
    first = second = hashes[0]
    for other in hashes[1:]:
        if last == 0:
            raise wrong
        if place & 1 or place == last:
            first, second = node(other, first), node(other, second)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            second = node(second, other)
        place, last = place >> 1, last >> 1
    if last or first != old_root or second != new_root:
        raise wrong


def check(proof: dict[str, Any], key: str) -> str:
    """Check a proof and return what it proves. Raises `WrongError`."""
    path = [bytes.fromhex(each) for each in proof["path"]]
    if proof["format"] == "ledger consistency proof 1":
        old, new = read_note(proof["old"], key), read_note(proof["new"], key)
        check_consistency(old[0], new[0], old[1], new[1], path)
        return f"The log of {new[0]} events begins with the log of {old[0]} events."
    if proof["format"] != "ledger inclusion proof 1":
        raise WrongError("this is a proof of another kind or version")
    if proof["checkpoint"] is None:
        raise WrongError("the proof has no signed checkpoint")
    size, root, more = read_note(proof["checkpoint"], key)
    leaf = proof["leaf"].encode()
    said = json.loads(leaf)
    check_inclusion(said["position"] - 1, size, sha256(b"\x00" + leaf).digest(), path, root)
    about = [f"The event at position {said['position']} is in the log of {size} events."]
    for name, value in said.items():
        if name.endswith("_us") and value is not None:
            shown = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
        else:
            shown = value
        about.append(f"  {name.removesuffix('_us'):12} {shown}")
    about.append(f"  {'signed':12} {', '.join(line for line in more if line)}")
    if proof["body"] is None:
        about.append("The body is not in the proof; its hash is body_sha256.")
    elif sha256(from_base64(proof["body"])).hexdigest() != said["body_sha256"]:
        raise WrongError("the body is not the one that was received")
    else:
        about.append("The body in the proof is the one that was received.")
    return "\n".join(about)


def main() -> int:
    """Check the proof that the command line names."""
    parser = argparse.ArgumentParser(description="Check a proof that `ledger prove` wrote.")
    parser.add_argument("proof", type=Path)
    parser.add_argument("--key", required=True, help="the public key of the log: NAME+ID+KEY")
    parser.add_argument("--body", type=Path, help="write the body that was received to this file")
    given = parser.parse_args()
    try:
        proof = json.loads(given.proof.read_text(encoding="utf-8"))
        words = check(proof, given.key)
    except WrongError as error:
        sys.stderr.write(f"WRONG: {error}\n")
        return 1
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        sys.stderr.write(f"WRONG: this is not a proof, or not a public key: {error!r}\n")
        return 1
    sys.stdout.write(f"{words}\n")
    if given.body and proof.get("body") is not None:
        given.body.write_bytes(from_base64(proof["body"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
