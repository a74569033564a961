# SPDX-License-Identifier: Apache-2.0
"""E2B's own client takes its stand-in for the service."""

import pytest

from fakes import Fake
from support import npm


@pytest.mark.timeout(600)
def test_the_vendors_client_takes_it_for_the_service(tmp_path):
    with Fake("e2b") as fake:
        npm.script("e2b.mjs", tmp_path, fake.environ)
        assert fake.journal("/v2/sandboxes$", "POST", server="api")
