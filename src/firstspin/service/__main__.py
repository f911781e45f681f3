"""`firstspin serve`: answer over HTTP. Only here does the service read the environment, the clock and signals."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from math import inf
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: a worker is one thread, and forks safely

import uvloop

from firstspin.events.arguments import move_passwords_away
from firstspin.events.schema import Secret
from firstspin.experiment.plan import Plan, experiment_key, read_plan
from firstspin.files import workspace
from firstspin.installation.extras import need
from firstspin.installation.machine import machine_memory
from firstspin.models.compiled import MISSING
from firstspin.records import InputError, Listens, StoredAnswer
from firstspin.service.api_keys import Key, Keys, read_keys
from firstspin.service.app import App, AppOptions, Clock
from firstspin.service.background.__main__ import ROWS, Background, webhook_receiver
from firstspin.service.bundles import probe_process
from firstspin.service.bundles.store import BundleStore
from firstspin.service.bundles.watch import BundleWatch
from firstspin.service.challenger import shadow
from firstspin.service.challenger.canary import challenger_copies, stop_file
from firstspin.service.challenger.shadow import ShadowSampler
from firstspin.service.exposures import ExposureLog
from firstspin.service.http.cross_origin import hosts
from firstspin.service.http.hub import ConnectionLimits
from firstspin.service.http.sagemaker import further
from firstspin.service.metrics import ProcessMetrics, SharedMetrics
from firstspin.service.multi_model import ManyModels, ModelCache
from firstspin.service.options import has_pages, parse, slot_settings
from firstspin.service.pages.site import SECTIONS
from firstspin.service.process import logs, signals
from firstspin.service.process.children import Child
from firstspin.service.process.clock import read_clock
from firstspin.service.process.crew import Crew, Slot
from firstspin.service.process.resources import allow_many_files, locked_store, new_crew
from firstspin.service.process.supervisor import Supervisor, SupervisorContext
from firstspin.service.process.worker import Order, Worker, WorkerConfig, WorkerIO
from firstspin.service.telemetry.link import Telemetry, connected
from firstspin.service.watch_facts import WATCH_FILE
from firstspin.serving.experiment import Running, running
from firstspin.serving.lookups import LOOKUP_SECONDS, UserLookups
from firstspin.serving.policy import REFUSE, PolicySettings
from firstspin.serving.slot.carousel import RATES, CarouselSlot
from firstspin.watch.answered_users import AnsweredUsers

STORE_PATIENCE = 1.4
"""Seconds that a write of the event store waits for other processes: a request is refused before it is overdue."""

LISTEN_THREADS = 4
"""Connections of a worker to the event store that look up listens."""


def main() -> None:
    """Run `firstspin serve`."""
    move_passwords_away()
    signals.ignore_others()
    signals.end_at_start()
    options = parse(sys.argv[1:], os.environ)
    logs.start(options.log_level)
    try:
        with nullcontext(options.state) if options.state else workspace("serve") as state:
            status = _supervise(options, state)
    except InputError as problem:
        sys.exit(f"firstspin serve: {problem}")
    except OSError as problem:
        sys.exit(f"firstspin serve: {f'{problem.filename}: ' if problem.filename else ''}{problem.strerror or problem}")
    sys.exit(status)


def _supervise(options: argparse.Namespace, state: Path) -> int:
    allow_many_files()
    plan = _plan(options)
    bundle_store = locked_store(state)
    secret = _checked_stores(options)
    model_cache = _model_cache(options, state)
    tallies = SharedMetrics(options.workers + ROWS)
    queue = shadow.queue(options.shadow) if options.shadow else None
    config = _worker_config(options)
    receiver, telemetry = webhook_receiver(options, os.environ), connected(os.environ)
    pages, slot_folder = _experiment_pages(options, state), _slot_folder(options, state)
    # read once: a process that is restarted needs neither file
    canary_stop = stop_file(state, experiment_key(plan)) if plan and options.challenger else None
    keys = read_keys(options.keys) if options.keys else None
    about = pages, slot_folder, canary_stop, plan, keys, telemetry, queue
    run_worker = _worker_runner(options, config, tallies, model_cache, secret, *about)
    admin_at = None if options.admin_port is None else (options.admin_host, options.admin_port)
    crew = new_crew((options.host, options.port), options.workers, admin_at, tallies, bundle_store.private)
    logs.count_dropped(partial(crew.tally().count, "firstspin_log_lines_dropped"))
    _report_missing_c_code(crew)
    return Supervisor(
        models=_watch(options, bundle_store, crew, config),
        challenger=_challenger(options, challenger_copies(state, experiment_key(plan)), crew, config) if plan else None,
        canary_stop=canary_stop,
        crew=crew,
        context=SupervisorContext(
            now=time.monotonic,
            signals=signals.as_bytes(),
            run_worker=run_worker,
            run_admin=partial(_run_admin, options, state, tallies, secret, crew.port.getsockname()[1], plan, keys),
            announce=partial(_announce, options.host, crew.port.getsockname()[1]),
        ),
        without_model=options.allow_no_model or model_cache is not None,
        background=Background(
            options=options,
            state=state,
            crew=crew,
            tallies=tallies,
            secret=secret,
            plan=plan,
            bundle_store=bundle_store,
            policy=_policy(options),
            now=_clock(options),
            pages=pages,
            slot_folder=slot_folder,
            receiver=receiver,
            telemetry=telemetry,
            shadowed=queue[1] if queue else None,
            canary_stop=canary_stop,
        ).runs(),
    ).run()


def _watch(
    options: argparse.Namespace, store: BundleStore, crew: Crew, config: WorkerConfig, *, is_challenger: bool = False
) -> BundleWatch:
    return BundleWatch(
        bundle=options.challenger if is_challenger else options.bundle,
        store=store,
        crew=crew,
        run_probe=partial(
            probe_process.outcome, max_bytes=machine_memory() // 2, config=config, seconds=options.trial_seconds
        ),
        seconds=options.trial_seconds,
        is_challenger=is_challenger,
    )


def _challenger(options: argparse.Namespace, copies: Path, crew: Crew, config: WorkerConfig) -> BundleWatch | None:
    """The bundle of a canary's challenger, with `copies` of its own, if there is one; those of others are removed."""
    if not options.challenger:
        return None
    for earlier in set(copies.parent.glob("*")) - {copies}:
        shutil.rmtree(earlier, ignore_errors=True)
    return _watch(options, locked_store(copies, crew.private), crew, config, is_challenger=True)


def _plan(options: argparse.Namespace) -> Plan | None:
    """The plan of the experiment. Raises InputError where it can't be read, or its arms don't fit the bundles."""
    plan = read_plan(options.experiment) if options.experiment else None
    is_canary = running(plan).is_canary if plan else False
    if is_canary and not options.challenger:
        raise InputError(f"{options.experiment} is a canary: the bundle of its challenger is needed as --challenger")
    if options.challenger and not is_canary:
        raise InputError(f"{options.experiment} has no arm named challenger, which --challenger would answer")
    if is_canary:
        need("report", "the analysis of a canary")
    return plan


def _checked_stores(options: argparse.Namespace) -> Secret | None:
    """The event store's secret, if there is such a store. Raises InputError where a store can't be used."""
    if not (options.events or options.scores):
        return None
    from firstspin.service.store_check import event_store_secret, refuse_unusable
    from firstspin.serving.score_stores import check_scores

    secret = event_store_secret(options.events, _secret_path(options)) if options.events else None
    if options.scores:
        refuse_unusable("score store", lambda: check_scores(options.scores))
    return secret


def _report_missing_c_code(crew: Crew) -> None:
    crew.tally().gauge("firstspin_compiled", not MISSING)
    if MISSING:
        warning = "no C code, so numpy computes answers: the same, several times slower. Install with a C compiler"
        logging.getLogger(__name__).warning(warning, extra={"missing": MISSING})


def _model_cache(options: argparse.Namespace, state: Path) -> ModelCache | None:
    """The empty cache of a multi-model endpoint; None for a service with one model."""
    if options.models is None:
        return None
    memory = options.models_memory * 2**20 if options.models_memory else machine_memory() // 2
    model_cache = ModelCache(state / "models", options.models, memory // options.workers)
    model_cache.empty()
    return model_cache


def _worker_config(options: argparse.Namespace) -> WorkerConfig:
    return WorkerConfig(
        limits=ConnectionLimits(
            body=options.largest_body,
            head_seconds=options.head_seconds,
            body_seconds=options.body_seconds,
            idle_seconds=options.idle_seconds,
            write_seconds=options.body_seconds,
            connections=options.connections,
            in_flight=options.in_flight,
        ),
        max_registrations=options.most_newcomers or None,
        drain_delay=options.drain_delay,
    )


def _worker_runner(
    options: argparse.Namespace,
    config: WorkerConfig,
    tallies: SharedMetrics,
    model_cache: ModelCache | None,
    secret: Secret | None,
    pages: Path | None,
    slot_folder: Path | None,
    canary_stop: Path | None,
    plan: Plan | None,
    keys: tuple[Key, ...] | None,
    telemetry: Telemetry | None,
    queue: tuple[socket.socket, socket.socket] | None,
) -> Callable[[Slot, Sequence[Order], socket.socket], int]:
    experiment, now = running(plan) if plan else None, _clock(options)
    answered = AnsweredUsers()

    def run_worker(slot: Slot, first: Sequence[Order], channel: socket.socket) -> int:
        tally = tallies.row(slot.number)
        logs.count_dropped(partial(tally.count, "firstspin_log_lines_dropped"))
        try:
            ledger = _ledger(options, secret, experiment, now, answered) if secret else None
            app_options = AppOptions(
                options.allow_no_model or model_cache is not None,
                Keys(keys, 1 / options.workers, options.keys) if keys is not None else None,
                ledger,
                further(options.workers, ManyModels(model_cache, config) if model_cache else None),
                options.report,
                options.largest_answer or inf,
                _stored_answers(options),
                _recent_listens(options.events, secret) if secret and options.listens_from_events else None,
                _policy(options),
                has_pages(options),
                model_cache is not None,
                pages,
                options.bundle,
                _slot(options, slot_folder, tally) if slot_folder else None,
                slot_folder,
                telemetry.spans(tally, time.perf_counter_ns, time.time_ns) if telemetry else None,
                ShadowSampler(queue[0], options.shadow_share, tally) if queue else None,
                canary_stop,
            )
            app = App(tallies, tally, Clock(time.perf_counter_ns, now), app_options)
            left = uvloop.run(Worker(WorkerIO(slot.listener, channel, tally, _date), app, config).run(first))
            if ledger:
                ledger.report(closing=True)
                ledger.store.close(left, tally.beat)
            app.refresh()
        except InputError as problem:
            logging.getLogger(__name__).error("a worker can't start", extra={"reason": problem.bare})
            return 1
        return 0

    return run_worker


def _experiment_pages(options: argparse.Namespace, state: Path) -> Path | None:
    """The folder of the pages of experiments, where this service has one, running or ended, and can make its pages."""
    folder = state / "experiments"
    reads = has_pages(options) or options.webhook_url or options.challenger
    if not (options.experiment or folder.is_dir()) or not reads:
        return None
    if find_spec("jinja2") is None:
        logging.getLogger(__name__).warning("the experiment has no page of figures: pip install 'firstspin[report]'")
        return None
    folder.mkdir(exist_ok=True)
    return folder


def _slot_folder(options: argparse.Namespace, state: Path) -> Path | None:
    """The folder of the snapshot and the page of the exploration slot, where this service has one."""
    if not options.explore:
        return None
    folder = state / "slot"
    folder.mkdir(exist_ok=True)
    return folder


def _slot(options: argparse.Namespace, folder: Path, tally: ProcessMetrics) -> CarouselSlot:
    count = partial(tally.count, "firstspin_slot_answers")
    return CarouselSlot(options.explore, slot_settings(options), folder / RATES, count)


def _policy(options: argparse.Namespace) -> PolicySettings:
    return PolicySettings(
        options.least_age,
        options.under_age == REFUSE,
        options.scores_first,
        calibrated_rows=options.calibrated_rows,
        listens_from_events=options.listens_from_events,
    )


def _run_admin(
    options: argparse.Namespace,
    state: Path,
    tallies: SharedMetrics,
    secret: Secret | None,
    service_port: int,
    plan: Plan | None,
    keys: tuple[Key, ...] | None,
    child: Child,
    line: socket.socket,
) -> int:
    """The admin process: what it imports is imported here, so that no worker carries it."""
    tally = tallies.row(child.number)
    logs.count_dropped(partial(tally.count, "firstspin_log_lines_dropped"))
    os.setpgid(0, 0)  # Ctrl-C goes to the supervisor only
    port = child.listener.getsockname()[1]
    page = f"http://{options.admin_host}:{port}/ops"
    logging.getLogger(__name__).info("admin port", extra={"port": port, "admin_pid": os.getpid(), "page": page})
    ours = hosts(options.admin_host, options.admin_names)
    from firstspin.service.admin.__main__ import main as run_admin
    from firstspin.service.admin.operations import ServiceFacts

    service = ServiceFacts(
        plan=plan,
        has_event_store=secret is not None,
        needs_model=not (options.allow_no_model or options.models),
        port=service_port,
        sections=SECTIONS if has_pages(options) else (),
        watch=state / WATCH_FILE if secret else None,
        state=state,
        shadow=options.shadow,
    )
    admin_keys = Keys(keys, path=options.keys) if keys is not None else None
    run_admin(line, child.listener, admin_keys, options.events, secret, ours, tallies, tally, service)
    return 0


def _secret_path(options: argparse.Namespace) -> Path:
    path: Path = options.events_secret or options.state / "events.secret"
    return path


def _ledger(
    options: argparse.Namespace,
    secret: Secret,
    experiment: Running | None,
    now: Callable[[], datetime],
    answered: AnsweredUsers,
) -> ExposureLog:
    """The event store, opened in the process that uses it."""
    from firstspin.events.store import EventStore, open_database

    database = open_database(
        options.events, secret, listens_by_user=options.listens_from_events, patience=STORE_PATIENCE
    )
    return ExposureLog(EventStore(database), secret, now, experiment, answered)


def _recent_listens(url: str, secret: Secret) -> UserLookups[Listens]:
    from firstspin.events.recent_listens import RecentListens
    from firstspin.events.store import open_database

    reader = partial(open_database, url, secret, read_only=True, listens_by_user=True, patience=LOOKUP_SECONDS)
    return UserLookups(lambda: RecentListens(reader, secret), time.monotonic_ns, threads=LISTEN_THREADS)


def _stored_answers(options: argparse.Namespace) -> UserLookups[StoredAnswer] | None:
    if not options.scores:
        return None
    from firstspin.serving.score_stores import read_scores

    return UserLookups(
        lambda: read_scores(options.scores),
        time.monotonic_ns,
        budget=options.scores_seconds,
    )


def _clock(options: argparse.Namespace) -> Callable[[], datetime]:
    return read_clock(options.clock) if options.clock else lambda: datetime.now(UTC)


def _date() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def _announce(host: str, port: int) -> None:
    with closing(logs.Unblocked(1)) as stdout:
        stdout.write(f"firstspin answers at http://{host}:{port}\n".encode())


if __name__ == "__main__":
    main()
