# SPDX-License-Identifier: Apache-2.0
"""File access as another user, for one thread and a while."""

import contextlib
import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def drop_groups():
    """Once, at the start: as_user() changes uid and gid only."""
    if os.geteuid() == 0:
        os.setgroups([])


@contextlib.contextmanager
def as_user(uid, gid):
    """The kernel checks this thread's file accesses as that user's; what it makes is theirs.

    Only by root; anybody else stays who he is.
    """
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)
