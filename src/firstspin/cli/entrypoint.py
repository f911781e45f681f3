"""The image's entrypoint. What SIGTERM does in a training job is settled here, before anything heavy is imported.

numpy and LightGBM start threads when they are imported, and the kernel gives a signal to any thread that does not block
it: a job would die of it, or as a container's first process never hear it. Threads inherit what is blocked before them.
"""

from __future__ import annotations

import signal
import sys

from firstspin.lazily import lazily

container = lazily("firstspin.cli.container")


def main() -> None:
    """Run as SageMaker runs it: one argument, train or serve."""
    if sys.argv[1:2] == ["train"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    container.main()
