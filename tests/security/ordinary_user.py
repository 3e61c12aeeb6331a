"""The rights of an ordinary user for a test that root runs: modes of files and folders count then."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

_VERSION_3 = 0x20080522  # of linux/capability.h: two sets of 32 bits
_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Rights(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Within it this thread, and those that it starts, may do no more than other users; programs get root's rights."""
    header, rights = _Header(_VERSION_3, 0), (_Rights * 2)()
    _checked(_libc.capget(ctypes.byref(header), rights))
    before = [each.effective for each in rights]
    try:
        _set(header, rights, [0, 0])
        yield
    finally:
        _set(header, rights, before)


def _set(header: _Header, rights: ctypes.Array, effective: list[int]) -> None:
    for each, value in zip(rights, effective, strict=True):
        each.effective = value
    _checked(_libc.capset(ctypes.byref(header), rights))


def _checked(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
