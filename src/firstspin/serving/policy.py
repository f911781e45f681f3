"""The answering policy: what answers a registration, and with which ranking. Nothing else in firstspin decides this.

The service, the terminal, the Lambda and explanations call `decide` or `decide_many`. Batch scoring calls
`ranked_columns`, which asks this module's questions of columns, and `decide_many` for the rest. How an answer is
written down is the business of `responses`. In this order:

1. A registration under the minimum age is refused, where the settings say so.
2. Under the minimum age, age and gender reach no model: the business rule ranks the picks alone (`under-age`).
3. A user of the running experiment is answered by the policy of the assigned arm (`rule-arm` is the business rule as
   planned, not as a fallback), never by a stored answer. Where the challenger of an arm is absent or fails, the bundle
   in service answers (`champion`).
4. The stored answer of this user (`batch`) goes first where the settings say so, and otherwise replaces a model that
   fails or is absent. An answer stored by another bundle than the one in service is not used.
5. The model ranks (`model`). Without a single answer that training has seen, its ranking is what it expects of such
   registrations (`popular`); a model whose training saw none of them is not asked, and the rule ranks. Listens of the
   request move the model's scores (`models.evidence`), and no other answer: not the rule's, nor a stored one. Where
   the settings say so, the user's own events are looked up for a request without listens.
6. Where the model fails, the business rule ranks the picks (`rule`); without a bundle nothing is ranked (`no-model`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import msgspec
import numpy as np

from firstspin.experiment.assign import ArmSplit, Assignment, assign
from firstspin.models.predictor import BATCH, ranked
from firstspin.models.scorers import RuleScorer
from firstspin.records import MAX_AGE, Ranking, Registration, Rows, Source, StoredAnswer
from firstspin.serving.bundle import Bundle
from firstspin.serving.refusal import Refusal
from firstspin.serving.stations import SlotChoice
from firstspin.settings.environment import one_of, whole

MIN_AGE: Final = 13
"""The default minimum age in years (the United States' COPPA protects children under 13)."""

ANSWER, REFUSE = "answer", "refuse"
read_min_age: Final = whole(0, MAX_AGE)
read_under_age: Final = one_of(ANSWER, REFUSE)
"""How the two settings about age are read from text: options of `serve`, variables of the container and the Lambda."""

NO_MODEL: Final = "none"
"""The model that an answer without a bundle names."""

ArmPolicy = Literal["model", "rule", "challenger"]


class ArmPolicies(Protocol):
    """A running experiment: the split of users among arms, and the policy that answers each arm."""

    @property
    def split(self) -> ArmSplit:
        """The shares of the arms, and the users that take part."""
        ...

    @property
    def policies(self) -> Mapping[str, ArmPolicy]:
        """The policy of each arm."""
        ...

    @property
    def named(self) -> str:
        """The key of the experiment, where answers name it and the arm; otherwise empty."""
        ...


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What an operator decides.

    `min_age` is in years. `refuse_under_age`: younger users are refused, not answered by the rule. `stored_first`: a
    stored answer goes before the model's. `experiment`: users in its coverage are answered by the policy of their arm;
    `challenger` is the bundle of the policy of that name, None while there is none.
    `calibrated_rows`: an answer of the model has the number of genres that contain the favourite.
    `listens_from_events`: the listens of users are looked up, and an answer has the number of those that moved it.
    """

    min_age: int = MIN_AGE
    refuse_under_age: bool = False
    stored_first: bool = False
    experiment: ArmPolicies | None = None
    challenger: Bundle | None = None
    calibrated_rows: bool = False
    listens_from_events: bool = False


DEFAULTS: Final = PolicySettings()

_NO_CANDIDATES: Final[Mapping[ArmPolicy, Ranking]] = MappingProxyType({})


class Decision(msgspec.Struct, frozen=True):
    """The ranking that answers a registration, and why it is this one.

    `model` is the id of the bundle that ranked; `by_rule`: the business rule of the bundle ranked; `failure` names the
    error of a model that failed. Of a user of the experiment, `assignment` is the arm and `candidates` the ranking of
    each policy of its arms, of a challenger only where it answers the arm; `experiment` is its key, where the answer
    names it and the arm. `rows` and `listens` (the number of those that moved the ranking) as the settings say.
    `moved`: listens moved the ranking. `known`: the number of listens to stations that the model knows; None where it
    was not asked. `slot`: what the exploration slot shows (`carousel_slot`).
    """

    ranking: Ranking
    model: str
    by_rule: bool = False
    failure: str = ""
    assignment: Assignment | None = None
    candidates: Mapping[ArmPolicy, Ranking] = _NO_CANDIDATES
    experiment: str = ""
    rows: Rows | None = None
    listens: int = 0
    moved: bool = False
    known: int | None = None
    slot: SlotChoice | None = None

    @property
    def source(self) -> Source:
        """What answers."""
        return self.ranking.source

    @property
    def is_fallback(self) -> bool:
        """Whether the model is absent or failed, so that a stored answer would replace this one."""
        return bool(self.failure) or self.model == NO_MODEL


_ABSENT: Final = Decision(Ranking((), (), "no-model"), NO_MODEL)


def decide(
    registration: Registration,
    user: str | None,
    bundle: Bundle | None,
    stored: StoredAnswer | None,
    settings: PolicySettings,
    *,
    failure: str = "",
    in_service: str = "",
) -> Decision:
    """What answers one registration of a user (None: no id is known).

    `bundle` is None while there is no model. `failure` names why the model can't be asked, as when its endpoint failed;
    by default it is asked. `in_service` is the id of the bundle in service where `bundle` only stands in for it.
    Raises Refusal (403) for a registration under the minimum age, where the settings refuse those.
    """
    if settings.refuse_under_age:
        refuse_under_age((registration,), settings)
    decision = _decide(registration, user, bundle, stored, settings, failure, in_service)
    if settings.calibrated_rows:
        decision = _with_rows(decision, bundle, settings)
    return _with_listens(decision) if settings.listens_from_events else decision


def _decide(
    registration: Registration,
    user: str | None,
    bundle: Bundle | None,
    stored: StoredAnswer | None,
    settings: PolicySettings,
    failure: str,
    in_service: str,
) -> Decision:
    if bundle is None:
        return _from_store(stored) if stored and may_use_stored(registration, user, settings) else _ABSENT
    if is_under_age(registration, settings):
        return _under_age(registration, bundle)
    if settings.experiment and (assignment := _assignment(user, settings)):
        [by_rule] = _all_by_rule((registration,), bundle, settings)
        return _by_arm(registration, _by_model(registration, bundle, failure), by_rule, assignment, settings)
    if stored is None or user is None or not is_current(stored, bundle, in_service):
        return _by_model(registration, bundle, failure)
    if settings.stored_first or (decision := _by_model(registration, bundle, failure)).is_fallback:
        return _from_store(stored)
    return decision


def decide_many(
    registrations: Sequence[Registration],
    users: Sequence[str | None] | None,
    bundle: Bundle | None,
    settings: PolicySettings,
) -> Iterator[Decision]:
    """`decide` for many without stored answers, in order, to the last bit the same, in a fraction of the time.

    `users` are as many as the registrations, or None where no id is known. Raises Refusal where `decide` does for one.
    """
    refuse_under_age(registrations, settings)
    for start in range(0, len(registrations), BATCH):
        batch = registrations[start : start + BATCH]
        ids = users[start : start + BATCH] if users else [None] * len(batch)
        if bundle is None:
            yield from [_ABSENT] * len(batch)
        else:
            decisions = _decide_batch(batch, ids, bundle, settings)
            if settings.calibrated_rows:
                decisions = (_with_rows(one, bundle, settings) for one in decisions)
            if settings.listens_from_events:
                decisions = map(_with_listens, decisions)
            yield from decisions


def is_under_age(registration: Registration, settings: PolicySettings) -> bool:
    """Whether the registration gives an age below the minimum. A registration without an age is not under it."""
    return is_below_min(registration.age, settings)


def is_below_min(age: Any, settings: PolicySettings) -> bool:
    """Whether an age is under the minimum; an age that is not given (None) is not."""
    return age is not None and age < settings.min_age


def asks_model(known: Any, bundle: Bundle) -> Any:
    """Whether the model ranks: of one registration (bool) or many (n,), given whether training saw an answer."""
    return known | bundle.manifest.knows_silence


def model_source(known: bool) -> Source:
    """The source of what the model ranks; `known`: of an answer that training saw, or listens that say something."""
    return "model" if known else "popular"


def refuse_under_age(registrations: Sequence[Registration], settings: PolicySettings) -> None:
    """Raises Refusal (403) where one of these is under the minimum age and the settings refuse those."""
    if settings.refuse_under_age and any(is_under_age(registration, settings) for registration in registrations):
        raise under_age_refusal()


def under_age_refusal() -> Refusal:
    """How a registration under the minimum age is refused."""
    return Refusal(403, "under_age", "this service does not answer people of this age")


def assigned(registration: Registration, user: str | None, settings: PolicySettings) -> Assignment | None:
    """The arm of a user; None outside of the experiment, and for a registration under the minimum age."""
    return None if is_under_age(registration, settings) else _assignment(user, settings)


def may_use_stored(registration: Registration, user: str | None, settings: PolicySettings) -> bool:
    """Whether a stored answer of this user may be the answer, so that a lookup makes sense.

    Not under the minimum age: the stored answer may depend on an age and a gender that must not be used.
    """
    return user is not None and not is_under_age(registration, settings) and _assignment(user, settings) is None


def may_look_up_listens(
    registration: Registration, user: str | None, bundle: Bundle | None, settings: PolicySettings
) -> bool:
    """Whether the events of this user may move the answer, so that a lookup makes sense.

    Not under the minimum age; not where the request has listens, which take precedence; nor where no model uses them.
    """
    return (
        settings.listens_from_events
        and user is not None
        and not registration.listens
        and bundle is not None
        and bundle.evidence.settings.weight > 0
        and not is_under_age(registration, settings)
    )


def is_current(stored: StoredAnswer, bundle: Bundle | None, in_service: str = "") -> bool:
    """Whether an answer was stored by the bundle in service; without a bundle, the stored answer is all there is."""
    return bundle is None or stored.model == (in_service or bundle.id)


def lacks_model(source: str) -> bool:
    """Whether an answer of this source, decided elsewhere, is the fallback of a model that is absent or failed."""
    return source in ("rule", "no-model", "champion")


def is_by_challenger(decision: Decision, settings: PolicySettings) -> bool:
    """Whether the challenger's bundle ranked, whose stations and calibration then hold."""
    return (
        settings.challenger is not None and decision.assignment is not None and decision.model == settings.challenger.id
    )


def top(ranking: Ranking, k: int) -> Ranking:
    """The first k genres of a ranking."""
    return Ranking(tuple(islice(ranking.genres, k)), tuple(islice(ranking.probabilities, k)), ranking.source)


def _decide_batch(
    registrations: Sequence[Registration], users: Sequence[str | None], bundle: Bundle, settings: PolicySettings
) -> Iterable[Decision]:
    under = [is_below_min(registration.age, settings) for registration in registrations]
    if settings.experiment is None and not any(under):
        return _all_by_model(registrations, bundle)
    return _decide_mixed(registrations, users, under, bundle, settings)


def _decide_mixed(
    registrations: Sequence[Registration],
    users: Sequence[str | None],
    under: Sequence[bool],
    bundle: Bundle,
    settings: PolicySettings,
) -> Iterator[Decision]:
    """Some under the minimum age, or users of an experiment among them."""
    others = [one for one, young in zip(registrations, under, strict=True) if not young]
    by_model = iter(_all_by_model(others, bundle))
    split = settings.experiment.split if settings.experiment else None
    assignments = [
        None if young or user is None or split is None else assign(split, user)
        for user, young in zip(users, under, strict=True)
    ]
    in_experiment = [one for one, assignment in zip(registrations, assignments, strict=True) if assignment]
    by_rule = iter(_all_by_rule(in_experiment, bundle, settings))
    for registration, assignment, young in zip(registrations, assignments, under, strict=True):
        if young:
            yield _under_age(registration, bundle)
        elif assignment is None:
            yield next(by_model)
        else:
            yield _by_arm(registration, next(by_model), next(by_rule), assignment, settings)


def _with_rows(decision: Decision, bundle: Bundle | None, settings: PolicySettings) -> Decision:
    """The decision with its calibrated rows, where the bundle has them and its model ranked: they hold for no other."""
    if is_by_challenger(decision, settings):
        bundle = settings.challenger
    sets = bundle.manifest.rows if bundle else None
    if sets is None or decision.by_rule or decision.moved or decision.source not in ("model", "popular", "champion"):
        return decision
    return msgspec.structs.replace(decision, rows=sets.rows(decision.ranking.probabilities))


def _with_listens(decision: Decision) -> Decision:
    """The decision with the number of listens that moved it."""
    return msgspec.structs.replace(decision, listens=decision.known) if decision.moved else decision


def _assignment(user: str | None, settings: PolicySettings) -> Assignment | None:
    return None if user is None or settings.experiment is None else assign(settings.experiment.split, user)


def _under_age(registration: Registration, bundle: Bundle) -> Decision:
    return _by_rule(registration, bundle, "under-age")


def _from_store(stored: StoredAnswer) -> Decision:
    return Decision(stored.ranking, stored.model)


def _by_rule(registration: Registration, bundle: Bundle, source: Source, failure: str = "") -> Decision:
    """The business rule on the picks alone."""
    return Decision(bundle.rule.rank(Registration(genres=registration.genres), source), bundle.id, True, failure)


def _without_known_answers(registration: Registration, bundle: Bundle) -> Decision:
    """The rule, where the model knows no registration without answers; its scores are moved by the listens, if any."""
    known, moves = bundle.weighed(registration)
    if moves is None or bundle.rule.genres != bundle.evidence.genres:
        return msgspec.structs.replace(_by_rule(registration, bundle, "popular"), known=known)
    row = bundle.rule.encoder.encode(Registration(genres=registration.genres))
    return Decision(bundle.rule.rank_row(row, "model", moves), bundle.id, True, moved=True, known=known)


def _by_model(registration: Registration, bundle: Bundle, failure: str = "") -> Decision:
    """What the model ranks, or the rule in its place."""
    try:
        row, answered = bundle.predictor.encoder.encode_matched(registration)
        if not asks_model(answered, bundle):
            return _without_known_answers(registration, bundle)
        if not failure:
            known, moves = bundle.weighed(registration)
            ranking = bundle.predictor.rank_row(row, model_source(answered or moves is not None), moves)
            return Decision(ranking, bundle.id, moved=moves is not None, known=known)
    except Exception as problem:  # every newcomer gets an answer; its source says that the model failed
        failure = type(problem).__name__
    return _by_rule(registration, bundle, "rule", failure)


def _all_by_model(registrations: Sequence[Registration], bundle: Bundle) -> list[Decision]:
    """`_by_model` for many."""
    if not registrations:
        return []
    predictor, model = bundle.predictor, bundle.id
    try:
        rows, answered = predictor.encoder.matrix_matched(registrations)
        evidence = [bundle.weighed(registration) for registration in registrations]
        ranks = asks_model(np.array(answered), bundle)
        if not ranks.all():
            rows = rows[ranks]
        of_model = [moves for (_, moves), ranked in zip(evidence, ranks.tolist(), strict=True) if ranked]
        ranked_rows = iter(predictor.rank_rows(rows, of_model) if of_model else ())
        return [
            Decision(
                Ranking(*next(ranked_rows), model_source(is_answered or moves is not None)),
                model,
                moved=moves is not None,
                known=known,
            )
            if ranked
            else _without_known_answers(one, bundle)
            for one, is_answered, (known, moves), ranked in zip(
                registrations, answered, evidence, ranks.tolist(), strict=True
            )
        ]
    except Exception:  # again one by one, so that only those are affected for whom the model fails
        return [_by_model(registration, bundle) for registration in registrations]


def _all_by_rule(
    registrations: Sequence[Registration], bundle: Bundle, settings: PolicySettings
) -> Sequence[Ranking | None]:
    """The rankings by the business rule for users of the experiment; None for each where it answers no arm."""
    assert settings.experiment is not None or not registrations
    if not registrations or "rule" not in settings.experiment.policies.values():  # type: ignore[union-attr]
        return [None] * len(registrations)
    rule = bundle.rule
    if isinstance(rule.scorer, RuleScorer):
        by_rule = ranked(rule.scorer.scores_of_picks(rule.encoder.picked_columns(registrations)), rule.genres)
    else:
        by_rule = rule.rank_rows(rule.encoder.matrix([Registration(genres=one.genres) for one in registrations]))
    return [Ranking(genres, values, "rule-arm") for genres, values in by_rule]


def _by_arm(
    registration: Registration,
    by_model: Decision,
    by_rule: Ranking | None,
    assignment: Assignment,
    settings: PolicySettings,
) -> Decision:
    """The decision for a user of the experiment."""
    assert settings.experiment is not None
    policies, named = settings.experiment.policies, settings.experiment.named
    policy = policies[assignment.arm]
    candidates: dict[ArmPolicy, Ranking] = {"model": by_model.ranking} if "model" in policies.values() else {}
    if by_rule:
        candidates["rule"] = by_rule
        if policy == "rule":
            known, failure = by_model.known, by_model.failure
            return Decision(by_rule, by_model.model, True, failure, assignment, candidates, named, known=known)
    shown = by_model
    if policy == "challenger":
        shown = _by_challenger(registration, by_model, settings.challenger)
        candidates["challenger"] = shown.ranking
    return Decision(
        shown.ranking,
        shown.model,
        shown.by_rule,
        shown.failure,
        assignment,
        candidates,
        named,
        moved=shown.moved,
        known=shown.known,
    )


def _by_challenger(registration: Registration, by_model: Decision, challenger: Bundle | None) -> Decision:
    """What the challenger's model ranks; where it is absent or fails, the decision of the bundle in service."""
    failure = "NoChallenger"
    if challenger is not None:
        try:
            decision = _by_model(registration, challenger)
            if not decision.failure:
                return decision
            failure = decision.failure
        except Exception as problem:  # its business rule fails too
            failure = type(problem).__name__
    if by_model.failure:
        return by_model
    ranking = Ranking(by_model.ranking.genres, by_model.ranking.probabilities, "champion")
    return msgspec.structs.replace(by_model, ranking=ranking, failure=failure)
