"""What the disk's tests share beside fixtures."""

from __future__ import annotations

import os

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts, or sets a sysctl")
