"""Lets one other user pass through a folder, by an entry in the folder's access control list."""

import os
import stat
import struct
from pathlib import Path
from typing import Final

_ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_LIST_VERSION: Final = 2
_OWNER, _USER, _OWNING_GROUP, _GROUP, _MASK, _OTHERS = 1, 2, 4, 8, 16, 32
_PASS: Final = 1
"""The right to pass through a folder, without the right to list it."""

_NO_ID: Final = 0xFFFFFFFF


def let_user_pass(folder: Path, uid: int) -> None:
    """Add the right to pass through the folder for one user, and change no other right.

    Raises `OSError` where the file system has no access control lists, or on another system than
    Linux.
    """
    entries = _read(folder)
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _PASS
    # The mask limits what every named user and group may do.
    named = (rights for (tag, _), rights in entries.items() if tag in (_USER, _GROUP))
    limit = entries.get((_MASK, _NO_ID), entries[_OWNING_GROUP, _NO_ID])
    if (_MASK, _NO_ID) not in entries:
        for rights in named:
            limit |= rights
    entries[_MASK, _NO_ID] = limit | _PASS
    packed = b"".join(
        _ENTRY.pack(tag, rights, who) for (tag, who), rights in sorted(entries.items())
    )
    os.setxattr(folder, _ATTRIBUTE, _VERSION.pack(_LIST_VERSION) + packed)


def _read(folder: Path) -> dict[tuple[int, int], int]:
    """Return the rights in the folder's list by kind of entry and id."""
    try:
        packed = os.getxattr(folder, _ATTRIBUTE)
    except OSError:  # no list: the mode says it all
        mode = stat.S_IMODE(folder.stat().st_mode)
        return {
            (_OWNER, _NO_ID): mode >> 6,
            (_OWNING_GROUP, _NO_ID): mode >> 3 & 7,
            (_OTHERS, _NO_ID): mode & 7,
        }
    return {(tag, who): rights for tag, rights, who in _ENTRY.iter_unpack(packed[_VERSION.size :])}
