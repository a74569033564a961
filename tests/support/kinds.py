# SPDX-License-Identifier: Apache-2.0
"""The kinds of sandboxes that the tests of fs/ run in: what makes one, and what it can't do.

    pytestmark = pytest.mark.kinds(*kinds.ALL)       each test once in each kind, as test_x[ssh]
    @pytest.mark.kinds("local")                      only there
    @pytest.mark.needs("fifos")                      only where there is such a thing

`share` says how much of the long loops a kind runs: local has the full number, whose volume is the
other one; the kinds of the cached volume share theirs, so that the whole run stays short.
"""

from .tools import Failed


class Kind:
    """One kind. `lacks` names what DESIGN.md lets it refuse, with the reason."""

    def __init__(self, name, share=1.0, lacks=()):
        self.name = name
        self.share = share
        self.lacks = dict(lacks)

    def can(self, what):
        assert what in WORDS, what
        return what not in self.lacks

    def scaled(self, count, least=1):
        """A number of rounds, steps or seconds for this kind."""
        return max(least, int(count * self.share))

    def options(self, mount):
        """Mount options with which mkdir makes this kind; may write files below mount.base."""
        return [] if self.name == "local" else ["provider=" + self.name]

    def backing(self, box):
        """The real directory behind fs/: the host's side of a sandbox that is on this machine."""
        found = list(box.mount.state.glob("**/%s/workspace" % box.status()["id"]))
        if len(found) != 1:
            raise Failed("%d workspaces of %s" % (len(found), box.name))
        return found[0]

    def __repr__(self):
        return self.name


WORDS = ("fifos", "hard-links")

NO_FIFOS = "no provider call makes one"

LOCAL = Kind("local")
KINDS = {kind.name: kind for kind in (LOCAL,)}
ALL = tuple(KINDS)


def chosen(marker, needs):
    """The kinds that a test with these markers runs in; markers may be None."""
    names = marker.args if marker else (LOCAL.name,)
    return [name for name in names if all(KINDS[name].can(word) for word in needs)]
