# SPDX-License-Identifier: Apache-2.0
"""What the Python tests share: mounts, sandboxes, and running tools with a bound on every wait."""
