# SPDX-License-Identifier: Apache-2.0
"""What the stand-in servers share; each service's own ways are in its own files."""
