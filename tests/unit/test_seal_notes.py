"""Signed notes and keys: the formats of C2SP, byte for byte, and what is refused."""

import string
from datetime import UTC, datetime

import pytest

from ledger.errors import SealError
from ledger.seals.leaf import Leaf
from ledger.seals.merkle import leaf_hash
from ledger.seals.notes import (
    Checkpoint,
    PublicKey,
    SigningKey,
    is_signed_by,
    notes_in,
    read_checkpoint,
)

# Keys, text and note of the documentation of Go's package golang.org/x/mod/sumdb/note.
GO_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    f"{GO_TEXT}\n"
    "\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZ"
    "SNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_go_is_made_and_checked_byte_for_byte() -> None:
    key = SigningKey.read(GO_PRIVATE)
    assert str(key.public) == GO_PUBLIC
    assert key.to_text() == GO_PRIVATE + "\n"
    assert key.sign(GO_TEXT) == GO_NOTE
    assert is_signed_by(GO_NOTE, PublicKey.read(GO_PUBLIC))


CHECKPOINT = Checkpoint("ledger.example/log", 7, bytes(32), datetime(2024, 1, 20, 12, tzinfo=UTC))


def test_a_checkpoint_has_origin_size_root_and_time() -> None:
    assert CHECKPOINT.to_text() == (
        "ledger.example/log\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
        "sealed_at 2024-01-20T12:00:00Z\n"
    )
    assert read_checkpoint(CHECKPOINT.to_text()) == CHECKPOINT


def test_no_changed_note_is_signed() -> None:
    key = SigningKey.new("ledger.example/log")
    note = key.sign(CHECKPOINT.to_text())
    assert is_signed_by(note, key.public)
    assert not is_signed_by(note, SigningKey.new(key.name).public)
    assert not is_signed_by(note, PublicKey("other", key.public.key))
    for place, letter in enumerate(note[:-1]):  # the last is the line end
        changed = note[:place] + ("A" if letter != "A" else "B") + note[place + 1 :]
        assert not is_signed_by(changed, key.public), place


def test_a_signature_has_one_spelling() -> None:
    """The last letter of base64 has bits that decoding ignores: 68 bytes leave two of them."""
    key = SigningKey.new("ledger.example/log")
    note = key.sign(CHECKPOINT.to_text())
    letters = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    assert note.endswith("=\n")
    last = letters.index(note[-3])
    for bits in (1, 2, 3):
        assert not is_signed_by(note[:-3] + letters[last | bits] + note[-2:], key.public)


def test_two_signatures_are_both_found() -> None:
    keys = [SigningKey.new("log"), SigningKey.new("witness")]
    first, second = (key.sign(CHECKPOINT.to_text()) for key in keys)
    both = first + second.partition("\n\n")[2]
    assert all(is_signed_by(both, key.public) for key in keys)
    assert list(notes_in(f"{both}\n\n{first}")) == [both, first]


@pytest.mark.parametrize(
    "text",
    ["", "a", "a+b", "a+b+c", "a+00000000+AAAA", GO_PUBLIC[:-4], GO_PUBLIC.upper(), GO_PRIVATE],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(SealError):
        PublicKey.read(text)
    if text != GO_PRIVATE:
        with pytest.raises(SealError) as refused:
            SigningKey.read(text)
        assert len(text) < 5 or text not in str(refused.value)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a" * 201])
def test_a_name_that_no_note_could_hold_is_refused(name: str) -> None:
    with pytest.raises(SealError, match="cannot name a log"):
        SigningKey.new(name)


@pytest.mark.parametrize(
    "text", ["", "a", "a\n1", "a\n1\n!", "a\n-1\nAAAA", "a\n01\nAAAA", "\n1\n"]
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(SealError, match="not a checkpoint"):
        read_checkpoint(text)


def test_a_secret_is_not_shown() -> None:
    key = SigningKey.read(GO_PRIVATE)
    assert key.seed.hex() not in repr(key)
    assert repr(key) == "SigningKey('PeterNeumann')"


def test_the_leaf_of_an_event_never_changes() -> None:
    """Pinned: another spelling would break every proof that was ever given away."""
    leaf = Leaf(
        1,
        1705747800000001,
        1705747800000000,
        "webhook",
        'L"\u00e9',
        "B/\U0001f469",
        "bill.created",
        "ab" * 32,
        "cd" * 32,
    )
    assert leaf.to_bytes().decode() == (
        '{"position":1,"received_at_us":1705747800000001,"event_time_us":1705747800000000,'
        '"source":"webhook","lab_id":"L\\"\u00e9","bill_id":"B/\U0001f469",'
        f'"event_type":"bill.created","digest":"{"ab" * 32}","body_sha256":"{"cd" * 32}"}}'
    )
    assert leaf_hash(leaf.to_bytes()).hex() == (
        "0f90b8254491e6d13600c8fd9cfe33d8bdfb996c28ae2eb159662249ab7453fd"
    )
