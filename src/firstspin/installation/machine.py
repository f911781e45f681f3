"""The machine that firstspin runs on."""

from __future__ import annotations

import os
from pathlib import Path


def machine_memory() -> int:
    """The memory limit of the container, or else the memory of the machine, in bytes."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup limit
        return physical
