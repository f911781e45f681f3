"""The article's A/B test on simulated users with known taste: from the plan to the verdict, end to end.

users -HTTP-> the real service -> event store -> export -> attribute -> analyse -> verdict, beside the ground truth
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow.parquet as pq
import uvloop
from numpy.typing import NDArray

from firstspin import preflight
from firstspin.events.schema import KEY_BYTES, Secret, read_secret, scoped
from firstspin.events.store import open_database
from firstspin.experiment.attribution import Attributed, Counted
from firstspin.experiment.plan import Plan, checked_plan, experiment_key, reads_at
from firstspin.experiment.rules import Metric
from firstspin.experiment.run import analyse_store
from firstspin.experiment.verdict import Verdict
from firstspin.models.task import Progress
from firstspin.records import InputError
from firstspin.service.process.clock import set_clock
from firstspin.serving import bundle
from firstspin.simulation.client import LoadClient
from firstspin.simulation.days import Audience, Days, Lived, audience
from firstspin.simulation.oracle import NeverShown, TrueRates, never_shown, true_rates
from firstspin.simulation.service import HOST, SimulationPaths, serving
from firstspin.simulation.world import Newcomers, World, make_world, newcomers

BEGINS: Final = date(2026, 1, 5)  # a Monday
NEWCOMERS: Final = 3  # the seed's random stream of the experiment's users; the tables have other streams
ARMS: Final = {"rule": 1.0, "model": 1.0}
ARMS_ALIKE: Final = {"model-a": 1.0, "model-b": 1.0}
METRICS: Final = (Metric("clicked", "binary"), Metric("seconds", "continuous", cap="p99", margin=0.05))
BASELINE, EFFECT = 0.05, 0.087  # expected click rate and lift of the article's test


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings of a simulated experiment; with `alike` both arms show the same (an A/A test).

    `connections` is the number of keep-alive connections to the service, with one request at a time on each.
    """

    users: int = 100_000
    days: int = 10
    seed: int = 0
    alike: bool = False
    workers: int = 1
    connections: int = 8


class Served(msgspec.Struct, frozen=True):
    """Throughput and latency of the service during the simulation."""

    recommendations: int
    events: int
    errors: int
    a_second: float
    p50_ms: float
    p99_ms: float
    connections: int


class Simulated(msgspec.Struct, frozen=True):
    """The result of a simulated experiment: throughput, verdict, and ground truth."""

    experiment: str
    users: int
    days: int
    seed: int
    arms_alike: bool
    served: Served
    counted: Counted
    verdict: Verdict
    truth: TrueRates
    never_shown: tuple[NeverShown, ...]


def simulate(
    bundle_path: Path, setting: Setting, folder: Path, *, now: Callable[[], int], progress: Progress
) -> Simulated:
    """Run a simulated experiment against the real service, and analyse its event store.

    `folder` then contains the sealed plan, the store, its export and `outcomes.parquet`, one row per user. `now` is a
    monotonic clock in nanoseconds. Raises InputError for a bundle that was not trained on the seed's simulated service,
    and where `folder` can't be used.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world = make_world(setting.seed)
    popular = _check_bundle(bundle_path, world)
    plan = simulated_plan(setting)
    paths = SimulationPaths(folder)
    rng = np.random.default_rng([setting.seed, NEWCOMERS])
    secret = read_secret(paths.secret, rng.bytes(KEY_BYTES))
    progress("newcomers", 0.0)
    drawn = audience(newcomers(world, setting.users, rng), setting.days, f"simulated-{setting.seed}", rng)
    set_clock(paths.clock, datetime.combine(plan.starts_on, time(), UTC))
    with serving(bundle_path, plan, paths, setting.workers) as port:
        client = LoadClient(HOST, port, setting.connections, now)
        lived = uvloop.run(_live(client, plan, drawn, _genre_numbers(world), paths, progress))
    progress("analysis", 1.0)
    attributed, verdict = _analysed(paths, secret, plan)
    people = drawn.people.take(_rows(drawn, attributed, secret, plan))
    about = people, attributed.table, ARMS, _genres(world), world.genres, popular, rng
    return Simulated(
        experiment=experiment_key(plan),
        users=setting.users,
        days=setting.days,
        seed=setting.seed,
        arms_alike=setting.alike,
        served=_served(lived, setting),
        counted=attributed.counted,
        verdict=verdict,
        truth=_truth(people, attributed, plan, world),
        never_shown=() if setting.alike else never_shown(*about),
    )


def check_folder(folder: Path) -> None:
    """Raises InputError where the folder can't be written, or has a simulation already."""
    preflight.folder(folder)
    if (plan := SimulationPaths(folder).plan).exists():
        raise InputError(f"{plan} exists and is sealed; choose another folder")


def simulated_plan(setting: Setting) -> Plan:
    """The plan of the article's test: model against rule, clicks as primary metric, listening as guardrail."""
    arms = ARMS_ALIKE if setting.alike else ARMS
    return checked_plan(
        Plan(
            name="simulated",
            starts_on=BEGINS,
            control=next(iter(arms)),
            arms=arms,
            metrics=METRICS,
            registrations_a_day=max(setting.users // setting.days, 1),
            baseline=BASELINE,
            minimum_effect=EFFECT,
            days=setting.days,
        )
    )


async def _live(
    client: LoadClient,
    plan: Plan,
    drawn: Audience,
    genre_of: Mapping[str, int],
    paths: SimulationPaths,
    progress: Progress,
) -> Lived:
    await client.check()
    return await Days(client, plan, drawn, genre_of, lambda moment: set_clock(paths.clock, moment)).live(progress)


def _check_bundle(path: Path, world: World) -> str:
    """The bundle's most popular station. Raises InputError where its stations are not those of the simulation."""
    popular = bundle.load(path).catalogue.popular
    if not popular or set(popular) - set(world.dial.stations):
        raise InputError(f"{path} was not trained on the simulated service of seed {world.seed}")
    return popular[0].station_id


def _genres(world: World) -> dict[str, str]:
    return {station.station_id: station.genre for station in world.dial.stations}


def _genre_numbers(world: World) -> dict[str, int]:
    return {station: world.genres.index(genre) for station, genre in _genres(world).items()}


def _analysed(paths: SimulationPaths, secret: Secret, plan: Plan) -> tuple[Attributed, Verdict]:
    """The analysis of the event store at the plan's end; the row per user is written to outcomes.parquet."""
    with closing(open_database(paths.store, secret)) as database:
        attributed, verdict = analyse_store(database, plan, paths.folder, now=reads_at(plan))
    pq.write_table(attributed.table, paths.folder / "outcomes.parquet")
    return attributed, verdict


def _rows(drawn: Audience, attributed: Attributed, secret: Secret, plan: Plan) -> NDArray[np.int64]:
    """The position in the audience of each row's user, by the keyed hash of the store's secret."""
    scope = experiment_key(plan)
    number = {scoped(secret.user_hash(user_id), scope): i for i, user_id in enumerate(drawn.user_ids)}
    return np.array([number[key] for key in attributed.table["user_key"].to_pylist()], dtype=np.int64)


def _truth(people: Newcomers, attributed: Attributed, plan: Plan, world: World) -> TrueRates:
    genre_of = _genre_numbers(world)
    shown = {
        arm: np.array([genre_of[best[0]] for best in attributed.table[f"candidates_{arm}"].to_pylist()], dtype=np.int64)
        for arm in plan.arms
    }
    return true_rates(people, *shown.values())


def _served(lived: Lived, setting: Setting) -> Served:
    p50, p99 = np.quantile(lived.took, (0.5, 0.99)) / 1e6 if lived.took else (0.0, 0.0)
    a_second = len(lived.took) / lived.asking * 1e9 if lived.asking else 0.0
    return Served(
        recommendations=len(lived.took),
        events=lived.events,
        errors=lived.errors,
        a_second=a_second,
        p50_ms=float(p50),
        p99_ms=float(p99),
        connections=setting.connections,
    )
