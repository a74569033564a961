# SPDX-License-Identifier: Apache-2.0
"""Daytona's own client takes its stand-in for the service."""

import pytest

from fakes import Fake
from support import npm


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["0.190.0", "0.205.1"])
def test_the_vendors_client_takes_it_for_the_service(tmp_path, version):
    with Fake("daytona", daemon=version, snapshot_class="linux-vm") as fake:
        npm.script("daytona.mjs", tmp_path, fake.environ, [version])
        assert fake.journal("/process/execute$", "POST", server="proxy")
