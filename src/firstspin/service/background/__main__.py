"""The processes of a service beside workers and admin process, each for one kind of work: what runs, and when.

What the processes import is imported in them, so that neither the supervisor nor a worker carries it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import partial
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Final

from firstspin.events.schema import Secret
from firstspin.experiment.plan import Plan
from firstspin.service.bundles.store import BundleStore
from firstspin.service.challenger import shadow
from firstspin.service.challenger.canary import stop_as_decided
from firstspin.service.metrics import ProcessMetrics, SharedMetrics
from firstspin.service.options import has_pages, slot_settings
from firstspin.service.pages.experiments import WANTED
from firstspin.service.process.background_runs import BackgroundRuns
from firstspin.service.process.crew import Crew
from firstspin.service.telemetry.link import Telemetry
from firstspin.service.watch_facts import WATCH_FILE
from firstspin.serving.policy import PolicySettings

if TYPE_CHECKING:
    from firstspin.experiment.monitor import Progress
    from firstspin.webhooks.delivery import Receiver

CANARY_NICENESS: Final = 10
"""A worse challenger is stopped while the workers are busy: a tenth of a core's time between one of them and this."""
SNAPSHOT_SECONDS: Final = 60.0
"""From one snapshot of the exploration slot to the next; opening its page makes one sooner."""


class MetricsRow(IntEnum):
    """Rows of the shared metrics after those of the workers."""

    SUPERVISOR = 0
    ADMIN = 1
    ANALYSIS = 2
    WEBHOOKS = 3
    TELEMETRY = 4
    WATCH = 5
    SHADOW = 6


ROWS: Final = len(MetricsRow)


def webhook_receiver(options: argparse.Namespace, environment: Mapping[str, str]) -> Receiver | None:
    """The receiver of webhooks, if there is one. Raises InputError where its URL or secret is none."""
    if not options.webhook_url:
        return None
    from firstspin.webhooks.delivery import read_receiver

    return read_receiver(options.webhook_url, options.webhook_secret_file, environment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What the processes outside the workers need; None for a part that this service does not have.

    `pages`: the folder of the experiments' pages · `slot_folder`: that of the exploration slot · `shadowed`: the socket
    with the registrations for the shadow bundle · `canary_stop`: the file that stops the canary.
    """

    options: argparse.Namespace
    state: Path
    crew: Crew
    tallies: SharedMetrics
    secret: Secret | None
    plan: Plan | None
    bundle_store: BundleStore
    policy: PolicySettings
    now: Callable[[], datetime]
    pages: Path | None
    slot_folder: Path | None
    receiver: Receiver | None
    telemetry: Telemetry | None
    shadowed: socket.socket | None
    canary_stop: Path | None

    def runs(self) -> tuple[BackgroundRuns, ...]:
        """Reports about answers, analyses, snapshots of the slot's rates, webhooks, the exporter, shadow scoring."""
        secret = self.secret
        runs = (
            self._watch(secret) if secret and self.options.models is None else None,
            self._analysis(secret, self.pages) if secret and self.pages else None,
            self._snapshots(secret, self.slot_folder) if secret and self.slot_folder else None,
            self._delivery(self._outbox, self.receiver) if self._outbox and self.receiver else None,
            self._export(self.telemetry) if self.telemetry else None,
            self._shadow(self.shadowed) if self.shadowed else None,
        )
        return tuple(run for run in runs if run)

    @property
    def _outbox(self) -> Path | None:
        return self.state / "webhooks" if self.receiver else None

    def _tally(self, row: MetricsRow) -> ProcessMetrics:
        return self.tallies.row(self.options.workers + row)

    def _watch(self, secret: Secret) -> BackgroundRuns:
        """The reports about answers: every quarter of an hour, and where there is none yet."""
        options, tallies, out = self.options, self.tallies, self.state / WATCH_FILE
        tally = self._tally(MetricsRow.WATCH)
        policy = PolicySettings(min_age=options.least_age)
        out.unlink(missing_ok=True)  # of an earlier service, perhaps with another bundle

        def run() -> None:
            from firstspin.service.notices import notify_of_answers
            from firstspin.service.watch_run import watch_store

            bundle = self.bundle_store.path(next(filter(None, tallies.models())))
            dropped = partial(tally.count, "firstspin_webhooks", "dropped")
            outbox = self._outbox
            tell = partial(notify_of_answers, outbox=outbox, dropped=dropped) if outbox else lambda _: None
            about = options.events, secret, bundle, options.labels, policy, out
            watch_store(*about, gauge=tally.gauge, tell=tell, now=self.now())

        def is_wanted() -> bool:
            return not out.exists() and any(tallies.models())

        return BackgroundRuns(
            "quality", self.crew, run, is_wanted, every=900.0, pause=300.0, max_seconds=3_600.0, when_idle=True
        )  # an hour: it ranks all labelled users again, where no worker wants the core

    def _analysis(self, secret: Secret, pages: Path) -> BackgroundRuns:
        """The analyses: every five minutes, and when a page of an experiment is opened."""
        tally = self._tally(MetricsRow.ANALYSIS)
        dropped = partial(tally.count, "firstspin_webhooks", "dropped")

        def run() -> None:
            from firstspin.events.store import open_database
            from firstspin.service.notices import notify_of
            from firstspin.service.pages.analysis import analyse_store

            outbox = self._outbox

            def tell(progress: Progress) -> None:
                if self.canary_stop:
                    stop_as_decided(self.canary_stop, progress, tally)
                if outbox:
                    notify_of(progress, outbox, dropped)

            database = open_database(self.options.events, secret, create=False)
            analyse_store(database, self.plan, pages, now=self.now(), tell=tell)

        wanted = pages / WANTED

        def begin() -> None:
            with suppress(OSError):  # a canary is analysed where the disk is read-only
                wanted.unlink(missing_ok=True)

        look = partial(BackgroundRuns, "analysis", self.crew, run, wanted.exists, begin, every=300.0)
        return look(niceness=CANARY_NICENESS) if self.canary_stop else look(when_idle=True)

    def _snapshots(self, secret: Secret, folder: Path) -> BackgroundRuns:
        """The snapshots of the slot's rates and its page: at the start, every minute, and when the page is opened."""
        options = self.options
        has_page = has_pages(options) and find_spec("jinja2") is not None

        def run() -> None:
            from firstspin.events.store import open_database
            from firstspin.service.pages.slot_analysis import analyse_slot

            analyse_slot(
                open_database(options.events, secret, create=False),
                options.explore,
                slot_settings(options),
                folder,
                bundle=options.bundle,
                has_page=has_page,
                now=self.now(),
            )

        wanted = folder / WANTED
        wanted.touch()
        begin = partial(wanted.unlink, missing_ok=True)
        return BackgroundRuns("slot", self.crew, run, wanted.exists, begin, every=SNAPSHOT_SECONDS)

    def _delivery(self, outbox: Path, receiver: Receiver) -> BackgroundRuns:
        """The sending of webhooks: when one is due."""
        from firstspin.webhooks.delivery import Delivery

        count = partial(self._tally(MetricsRow.WEBHOOKS).count, "firstspin_webhooks")
        delivery = Delivery(outbox, receiver, count, time.time, time.monotonic, random.Random())
        return BackgroundRuns("webhooks", self.crew, delivery.run, delivery.is_due, pause=1.0, max_seconds=60.0)

    def _export(self, telemetry: Telemetry) -> BackgroundRuns:
        """The process that exports spans and metrics, for as long as the service runs."""

        def run() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # during the imports
            from firstspin.service.telemetry import exporter

            tally = self._tally(MetricsRow.TELEMETRY)
            exporter.run(telemetry.receiver, telemetry.settings, os.environ, self.tallies, tally)

        return BackgroundRuns("telemetry", self.crew, run, lambda: True, pause=5.0, max_seconds=inf, linger=3.0)

    def _shadow(self, inbox: socket.socket) -> BackgroundRuns:
        tally = self._tally(MetricsRow.SHADOW)
        return shadow.runs(self.options.shadow, inbox, self.crew, tally, self.policy, time.monotonic)
