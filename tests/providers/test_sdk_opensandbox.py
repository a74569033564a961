# SPDX-License-Identifier: Apache-2.0
"""OpenSandbox's own client takes its stand-in for the service."""

import pytest

from fakes import Fake
from support import npm


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["direct", "proxy"])
def test_the_vendors_client_takes_it_for_the_service(tmp_path, way):
    with Fake("opensandbox") as fake:
        env = dict(fake.environ, OPENSANDBOX_DISABLE_METRICS="1")
        npm.script("opensandbox.mjs", tmp_path, env, [way])
        assert fake.journal("^/v1/sandboxes/[^/]*/proxy/44772/command$", "POST") if way == "proxy" else \
            fake.journal("^/proxy/44772/command$", "POST", server="execd")
        # upstream's issue 1689: this client gives the tenant's key to the sandbox itself
        told = [each for each in fake.problems() if not each.endswith("API key was given to the sandbox")]
        assert not told
