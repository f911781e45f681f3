"""The image's entrypoint: what must be settled before numpy is imported, and with it come its threads.

The kernel gives a signal to any thread that does not block it: a job would die of SIGTERM, or as a container's first
process never hear it. Threads inherit what is blocked before them.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run as SageMaker runs it: one argument, train or serve."""
    if sys.argv[1:2] == ["train"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    else:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the service forks its workers, which threads don't bear
    from firstspin.cli import container  # after the signal mask and the variable: it imports numpy

    container.main()
