"""AWS Lambda in front of a SageMaker endpoint: answers within a time budget, whatever the endpoint does.

The body is read by the service's own reader, so a bad request is refused here in the same words as there, without a
call. A good one goes to the endpoint as it came. What the endpoint's container refuses (4xx) is refused here too. When
the endpoint is slow, throttled, down, missing or answers nonsense, the policy of the service (`serving.policy`) decides
with the model as failed: the stored answer of this very user (`source` "batch"), where a table of them is configured
and the request names its user; else the business rule of the bundle in the Lambda's package.

The user is named in the body of `/v1/recommendations`, as the service's, or in the header `x-firstspin-user` of
`/invocations`. Only the former takes part in a running experiment (`aws.experiment`): the endpoint answers the model's
arm, the package's rule the rule's arm, and exposures go to Kinesis Data Firehose. Where a table of listens is
configured, those of a single user of `/v1/recommendations` go to the endpoint with the registration.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

import msgspec

from firstspin.aws.clients import open_without_retries
from firstspin.aws.front import experiment
from firstspin.aws.front.endpoint_answer import answer_parts, answer_source, check_answer, user_answer
from firstspin.aws.front.experiment import EXPOSURES_DROPPED, ExposureStream, UserAnswer, body_without_users
from firstspin.aws.front.listens import LISTENS_TABLE, DynamoListens
from firstspin.aws.front.proxy_event import (
    USERS_ROUTE,
    ProxyEvent,
    body_of,
    route_of,
    user_of_header,
)
from firstspin.events.firehose import put_exposures
from firstspin.events.schema import Exposure
from firstspin.records import Listens, Registration, StoredAnswer
from firstspin.serving import bundle
from firstspin.serving.bodies.encodings import Encoding
from firstspin.serving.bodies.limits import MAX_BODY_BYTES
from firstspin.serving.bodies.wire import BodyReader, ParsedBody, join, user_of
from firstspin.serving.bundle import Bundle
from firstspin.serving.lookups import LOOKUP_SECONDS, OTHER_VERSION, UserLookups
from firstspin.serving.policy import (
    DEFAULTS,
    REFUSE,
    ArmPolicy,
    Decision,
    PolicySettings,
    assigned,
    decide,
    decide_many,
    is_current,
    lacks_model,
    may_look_up_listens,
    may_use_stored,
    read_min_age,
    read_under_age,
    refuse_under_age,
    under_age_refusal,
)
from firstspin.serving.refusal import Refusal
from firstspin.serving.responses import Responses, named_arm
from firstspin.serving.score_stores import DynamoScores
from firstspin.settings.environment import path, read, refuse_misspelt, required, seconds, words

log = logging.getLogger(__name__)

NO_ENDPOINT: Final = "warm-up"
"""A name that the Lambda's role may not invoke."""

TRIES: Final = 2
"""A call and at most one more."""

SHARES: Final = TRIES + 1
"""Each try has an equal share of the budget; the last is for the lookup of a stored answer, or for an exposure.

No request needs both: a user of an experiment is never answered from the store.
"""

CONNECT_SECONDS: Final = 1.0
"""Of the lookup of listens: its first connection takes longer than its budget, and is there for the next request."""

THREADS: Final = 8
"""Calls that hang beyond their time, before the gateway goes straight to the fallback."""


MAX_ESCAPE: Final = 6
"""Bytes that a character of an answer has at most where Lambda counts it, as in \\u00e9."""

ENDPOINT, BUNDLE, BUDGET = "FIRSTSPIN_ENDPOINT", "FIRSTSPIN_BUNDLE", "FIRSTSPIN_BUDGET"
MIN_AGE, UNDER_AGE, SCORES = "FIRSTSPIN_LEAST_AGE", "FIRSTSPIN_UNDER_AGE", "FIRSTSPIN_SCORES"
VARIABLES: Final = (ENDPOINT, BUNDLE, BUDGET, MIN_AGE, UNDER_AGE, SCORES, LISTENS_TABLE, *experiment.VARIABLES)


NOT_RETRIED: Final = frozenset(
    {
        "AccessDeniedException",
        "MalformedAnswer",
        "ModelNotReadyException",
        "ThrottlingException",
        "ValidationError",
        "ValidationException",
    }
)
"""Errors that an immediate retry does not fix, or makes worse (throttling)."""

Found = TypeVar("Found")


class Runtime(Protocol):
    """The one verb we use of boto3's client `sagemaker-runtime`."""

    def invoke_endpoint(self, **words: Any) -> Mapping[str, Any]:
        """Ask the endpoint."""


@dataclass(slots=True)
class Gateway:
    """One Lambda: `endpoint` by name, `budget` in seconds for all over the network that follows the lookup of listens.

    `in_service` is the id of the bundle that the endpoint answers from: that of its last answer in JSON, and before the
    first one that of the Lambda's package.
    """

    runtime: Runtime
    endpoint: str
    bundle: Bundle
    reader: BodyReader
    settings: PolicySettings = DEFAULTS
    stored: UserLookups[StoredAnswer] | None = None
    exposures: ExposureStream | None = None
    budget: float = 0.6
    threads: Executor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "gateway"))
    listens: UserLookups[Listens] | None = None
    responses: Responses = field(init=False)
    in_service: str = field(init=False)
    reader_of_users: BodyReader = field(init=False)
    settings_of_users: PolicySettings = field(init=False)

    def __post_init__(self) -> None:
        self.responses, self.in_service = Responses(self.bundle), self.bundle.id
        self.reader_of_users = BodyReader(self.reader.extra, of_users=True, max_instances=self.reader.max_instances)
        running = self.exposures.running if self.exposures else None
        self.settings_of_users = replace(self.settings, experiment=running, listens_from_events=bool(self.listens))

    def __call__(self, event: object, _context: object = None) -> dict[str, Any]:
        """Answer a proxy event of API Gateway, of a REST API (1.0) or an HTTP API (2.0), or of a load balancer."""
        try:
            request = msgspec.convert(event, ProxyEvent)
        except (msgspec.ValidationError, UnicodeEncodeError):  # a name with a lone surrogate is the latter
            return _refused(Refusal(400, "malformed", "malformed event"))
        reply = self._answer(request)
        if request.in_lists:
            reply["multiValueHeaders"] = {name: [value] for name, value in reply.pop("headers").items()}
        return reply

    def warm(self) -> None:
        """Open the connection to SageMaker before the first request, by a call that IAM refuses before any endpoint."""
        with suppress(Exception):
            self.runtime.invoke_endpoint(EndpointName=NO_ENDPOINT, Body=b"")

    def _answer(self, event: ProxyEvent) -> dict[str, Any]:
        try:
            route, encoding, headers = route_of(event)
            body = body_of(event)
            if route == USERS_ROUTE:
                return self._to_users(body, encoding, event.max_bytes)
            answers = self._invocation(body, encoding, user_of_header(headers))
            return _reply(200, encoding.value, answers, event.max_bytes)
        except Refusal as refusal:
            return _refused(refusal)

    def _invocation(self, body: bytes, encoding: Encoding, user: str) -> bytes:
        """The answer of `/invocations`, whose user takes part in no experiment."""
        parsed = self.reader.read(body, encoding)
        refuse_under_age(parsed.registrations, self.settings)
        answer = self._by_endpoint(body, parsed)
        if answer is None:
            decisions = self._by_fallback(parsed.registrations, [user or None] * parsed.number, self.settings)
            pairs = zip(parsed.registrations, decisions, strict=True)
            return join((self.responses.encoded(*pair, encoding) for pair in pairs), parsed)
        if user and parsed.alone and lacks_model(answer_source(answer)):
            decision = self._from_store(parsed.registrations[0], user, self.settings)
            return self.responses.json(parsed.registrations[0], decision) if decision else answer
        return answer

    def _to_users(self, body: bytes, encoding: Encoding, max_bytes: int) -> dict[str, Any]:
        """The answer of `/v1/recommendations`, and its exposures on their way."""
        if self.exposures and encoding is Encoding.csv:
            raise Refusal(415, "unsupported_content_type", "recommendations for users are asked for in JSON")
        parsed = self.reader_of_users.read(body, encoding)
        refuse_under_age(parsed.registrations, self.settings)
        parsed = self._with_listens(parsed)
        answers = self._answer_users(parsed)
        reply = _reply(200, encoding.value, join((answer.body for answer in answers), parsed), max_bytes)
        if self.exposures:
            self._record(self.exposures, parsed.registrations, answers)
        return reply

    def _with_listens(self, parsed: ParsedBody) -> ParsedBody:
        """A request about one user with the listens of that user, where they may be used and come in time."""
        if not (self.listens and parsed.alone):
            return parsed
        one = parsed.registrations[0]
        if not may_look_up_listens(one, user_of(one), self.bundle, self.settings_of_users):
            return parsed
        listens, outcome = self.listens.wait(user_of(one))
        if outcome not in ("found", "none"):
            _log("listens_missed", outcome=outcome)
        return replace(parsed, registrations=(msgspec.structs.replace(one, listens=listens),)) if listens else parsed

    def _answer_users(self, parsed: ParsedBody) -> list[UserAnswer]:
        """An answer for each user, in order: by the rule in its arm, else by the endpoint or its fallback."""
        by_rule = [self._policy_of(one) == "rule" for one in parsed.registrations]
        others = [one for one, ruled in zip(parsed.registrations, by_rule, strict=True) if not ruled]
        from_endpoint = iter(self._users_by_endpoint(others, parsed) if others else ())
        of_arm = [one for one, ruled in zip(parsed.registrations, by_rule, strict=True) if ruled]
        decisions = decide_many(of_arm, list(map(user_of, of_arm)), self.bundle, self.settings_of_users)
        from_rule = iter([self._decided(*pair, parsed.encoding) for pair in zip(of_arm, decisions, strict=True)])
        return [next(from_rule if ruled else from_endpoint) for ruled in by_rule]

    def _policy_of(self, registration: Registration) -> ArmPolicy | None:
        """The policy of the user's arm; None outside of the experiment."""
        assignment = assigned(registration, user_of(registration), self.settings_of_users)
        running = self.settings_of_users.experiment
        return running.policies[assignment.arm] if assignment and running else None

    def _users_by_endpoint(self, registrations: Sequence[Registration], parsed: ParsedBody) -> list[UserAnswer]:
        """The endpoint's answers, or those of the fallback. The endpoint gets JSON without the user ids."""
        users, settings = list(map(user_of, registrations)), self.settings_of_users
        question = ParsedBody(registrations, Encoding.json, parsed.alone)
        answer = self._by_endpoint(body_without_users(question), question, self._inference_id(registrations))
        if answer is None:
            decisions: Sequence[Decision | None] = self._by_fallback(registrations, users, settings)
        elif parsed.alone and lacks_model(answer_source(answer)):
            decisions = [self._from_store(registrations[0], users[0], settings)]
        else:
            decisions = [None] * len(registrations)
        parts = [None] * len(registrations) if answer is None else answer_parts(answer, parsed.alone)
        return [
            self._decided(registration, decision, parsed.encoding)
            if decision
            else self._with_arm(registration, user_answer(part, parsed.encoding))
            for registration, decision, part in zip(registrations, decisions, parts, strict=True)
        ]

    def _with_arm(self, registration: Registration, answer: UserAnswer) -> UserAnswer:
        """The endpoint's answer, naming the user's experiment and arm where the plan says so."""
        running = self.settings_of_users.experiment
        assignment = assigned(registration, user_of(registration), self.settings_of_users)
        if not (running and running.named and assignment):
            return answer
        return replace(answer, body=answer.body.rstrip()[:-1] + named_arm(running.named, assignment))

    def _decided(self, registration: Registration, decision: Decision, encoding: Encoding) -> UserAnswer:
        body = self.responses.encoded(registration, decision, encoding)
        return UserAnswer(body, decision.source, decision.model, decision=decision)

    def _record(
        self, stream: ExposureStream, registrations: Sequence[Registration], answers: Sequence[UserAnswer]
    ) -> None:
        """Send the exposures within a share of the budget. An exposure that is lost is logged, and fails no answer."""
        exposures: list[Exposure] = []
        try:
            for registration, answer in zip(registrations, answers, strict=True):
                if assignment := assigned(registration, user_of(registration), self.settings_of_users):
                    stations = self._candidates(registration, answer)
                    known, moves = self.bundle.weighed(registration)
                    listens = known if self.listens and answer.source == "model" and moves is not None else 0
                    exposures += stream.exposures(user_of(registration), assignment, stations, answer, listens=listens)
            failed = self._in_time(lambda: put_exposures(stream.sink, exposures)).failed if exposures else 0
            problem = "refused"
        except Exception as error:  # whatever it is, the newcomers have their answers
            failed, problem = max(len(exposures), 1), _kind(error)
        if failed:
            _log(EXPOSURES_DROPPED, kind=problem, rows=failed)

    def _candidates(self, registration: Registration, answer: UserAnswer) -> Mapping[ArmPolicy, Sequence[str]]:
        """The stations that each policy would have shown to a user of the experiment.

        Those of the model in the rule's arm are known where the endpoint answers from the bundle of the package.
        """
        decision = answer.decision or decide(
            registration, user_of(registration), self.bundle, None, self.settings_of_users, failure="endpoint"
        )
        stations: dict[ArmPolicy, Sequence[str]] = {**self.responses.stations(registration, decision.candidates)}
        if answer.stations is not None:
            stations["model"] = answer.stations
        elif self._policy_of(registration) == "rule" and "model" in stations and self.in_service != self.bundle.id:
            stations["model"] = ()
        return stations

    def _inference_id(self, registrations: Sequence[Registration]) -> str:
        """A lone user of the experiment as in its exposures, so that captured data joins them; else empty."""
        if not self.exposures or len(registrations) > 1:
            return ""
        if not assigned(registrations[0], user_of(registrations[0]), self.settings_of_users):
            return ""
        return self.exposures.pseudonym(user_of(registrations[0]))

    def _by_endpoint(self, body: bytes, parsed: ParsedBody, inference_id: str = "") -> bytes | None:
        """The endpoint's answer, or None when there is none in time. Raises Refusal where its container refuses."""
        for attempt in range(TRIES):
            try:
                answer = self._in_time(lambda: self._ask(body, parsed.encoding, inference_id))
                self.in_service = check_answer(answer, parsed) or self.in_service
                return answer
            except Exception as problem:  # whatever it is, the newcomer gets an answer
                if refusal := _refusal(problem):
                    _log("endpoint_refused", status=refusal.status)
                    raise refusal from None
                _log("endpoint_failed", kind=_kind(problem), attempt=attempt + 1)
                if _kind(problem) in NOT_RETRIED:
                    break
        return None

    def _ask(self, body: bytes, encoding: Encoding, inference_id: str) -> bytes:
        named = {"InferenceId": inference_id} if inference_id else {}
        answer = self.runtime.invoke_endpoint(
            EndpointName=self.endpoint, ContentType=encoding.value, Accept=encoding.value, Body=body, **named
        )
        return bytes(answer["Body"].read())

    def _by_fallback(
        self, registrations: Sequence[Registration], users: Sequence[str | None], settings: PolicySettings
    ) -> list[Decision]:
        """The decisions without the endpoint; a stored answer only for a single user."""
        one_user = users[0] if len(users) == 1 else None
        stored = self._look_up(registrations[0], one_user, settings) if one_user else None
        decisions = [
            decide(registration, user, self.bundle, stored, settings, failure="endpoint", in_service=self.in_service)
            for registration, user in zip(registrations, users, strict=True)
        ]
        _log("fell_back", sources=sorted({decision.source for decision in decisions}))
        return decisions

    def _from_store(self, registration: Registration, user: str, settings: PolicySettings) -> Decision | None:
        """The decision for the stored answer of a user, where the endpoint answered without its model."""
        stored = self._look_up(registration, user, settings)
        if stored is None or not is_current(stored, self.bundle, self.in_service):
            return None
        return decide(registration, user, self.bundle, stored, settings, failure="model", in_service=self.in_service)

    def _look_up(self, registration: Registration, user: str, settings: PolicySettings) -> StoredAnswer | None:
        if self.stored is None or not may_use_stored(registration, user, settings):
            return None
        stored, outcome = self.stored.wait(user)
        is_other = stored is not None and not is_current(stored, self.bundle, self.in_service)
        _log("stored_answer", outcome=OTHER_VERSION if is_other else outcome)
        return stored

    def _in_time(self, call: Callable[[], Found]) -> Found:
        """What `call` gives within its share of the budget; TimeoutError after that, whatever it still waits for.

        botocore's own limits count neither the look-up of a name nor an answer that trickles in.
        """
        future = self.threads.submit(call)
        try:
            return future.result(self.budget / SHARES)
        finally:
            future.cancel()


def _reply(status: int, content_type: str, body: bytes, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    text = body.decode()
    if len(body) > max_bytes // MAX_ESCAPE and len(json.dumps(text)) > max_bytes:
        raise Refusal(413, "answer_too_large", "send fewer registrations in one request")
    return {
        "statusCode": status,
        "headers": {"content-type": content_type},
        "body": text,
        "isBase64Encoded": False,
    }


def _refused(refusal: Refusal) -> dict[str, Any]:
    return _reply(refusal.status, "application/json", refusal.body())


def _log(event: str, **fields: object) -> None:
    """One line of JSON. The alarms of deploy/aws count these events by name."""
    log.warning(json.dumps({"event": event, **fields}))


def _kind(problem: Exception) -> str:
    """The error's name, never its text: that may repeat what was sent."""
    response = getattr(problem, "response", None) or {}
    return str(response.get("Error", {}).get("Code") or type(problem).__name__)


def _refusal(problem: Exception) -> Refusal | None:
    """What the endpoint's container refused, where it did: its status, and never its text, which may repeat values."""
    response = getattr(problem, "response", None) or {}
    status = response.get("OriginalStatusCode")
    if _kind(problem) != "ModelError" or not isinstance(status, int) or not 400 <= status < 500:
        return None
    under_age = under_age_refusal()
    if status == under_age.status and f'"{under_age.code}"' in str(response.get("OriginalMessage")):
        return under_age
    return Refusal(status, "refused", "the endpoint refused the request")


def from_environment(environment: Mapping[str, str]) -> Gateway:
    """The gateway that the Lambda's environment describes.

    Variables: FIRSTSPIN_ENDPOINT, FIRSTSPIN_BUNDLE, FIRSTSPIN_BUDGET (seconds), FIRSTSPIN_LEAST_AGE and
    FIRSTSPIN_UNDER_AGE (as `firstspin serve` takes them: give the endpoint's container the same), optionally
    FIRSTSPIN_SCORES, the DynamoDB table that `firstspin score` writes, FIRSTSPIN_LISTENS, a DynamoDB table of listens
    (`aws.front.listens`), and those of an experiment (`aws.experiment`).
    Raises InputError, with the variable's name, for one that is missing, misspelt or can't be read.
    """
    refuse_misspelt(environment, VARIABLES)
    endpoint, folder = required(environment, ENDPOINT, words), required(environment, BUNDLE, path)
    budget = read(environment, BUDGET, seconds()) or 0.6
    table = read(environment, SCORES, words)
    listens = read(environment, LISTENS_TABLE, words)
    for_listens = min(LOOKUP_SECONDS, budget / (2 * SHARES)) if listens else 0.0
    loaded, budget = bundle.load(folder), budget - for_listens
    share = budget / SHARES
    return Gateway(
        runtime=open_without_retries("sagemaker-runtime", share),
        endpoint=endpoint,
        bundle=loaded,
        reader=BodyReader(loaded.manifest.extra),
        settings=_settings(environment),
        stored=_stored_answers(table, share) if table else None,
        listens=_recent_listens(listens, for_listens) if listens else None,
        exposures=experiment.from_environment(environment, lambda: open_without_retries("firehose", share)),
        budget=budget,
    )


def _settings(environment: Mapping[str, str]) -> PolicySettings:
    min_age = read(environment, MIN_AGE, read_min_age)
    under_age = read(environment, UNDER_AGE, read_under_age)
    return PolicySettings(DEFAULTS.min_age if min_age is None else min_age, under_age == REFUSE)


def _stored_answers(table: str, seconds: float) -> UserLookups[StoredAnswer]:
    scores = DynamoScores(table, open_without_retries("dynamodb", seconds))
    return UserLookups(lambda: scores, time.monotonic_ns, budget=seconds)


def _recent_listens(table: str, seconds: float) -> UserLookups[Listens]:
    recent = DynamoListens(table, open_without_retries("dynamodb", max(seconds, CONNECT_SECONDS)))
    return UserLookups(lambda: recent, time.monotonic_ns, budget=seconds)
