"""AWS clients with timeouts and retries, and their errors as one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from firstspin.installation.extras import need
from firstspin.records import InputError

TIMEOUTS: Final = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 5, "mode": "standard"}}
_MISSING: Final = {"403", "404", "NoSuchKey", "ResourceNotFound", "ResourceNotFoundException"}
"""403 has no name only as S3's answer to HEAD: of a missing key too, where the caller may not list the bucket."""

_NEXT: Final = {
    "NoCredentialsError": ": set them as for any AWS tool, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile",
    "NoRegionError": " Set AWS_DEFAULT_REGION, as for any AWS tool.",
}
"""Hints for errors that have none."""

_HIDDEN: Final = "; S3 answers so also for a missing key, where s3:ListBucket is not granted"


class AwsClient(Protocol):
    """A client of boto3: every operation of the service is a method."""

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        """The operation of that name."""


@dataclass(frozen=True, slots=True)
class Account:
    """The clients that a rollout needs."""

    sagemaker: AwsClient
    s3: AwsClient
    scaling: AwsClient
    cloudwatch: AwsClient


def open_account() -> Account:
    """The clients, with credentials, region and addresses from the environment, as in every AWS tool.

    Raises InputError where boto3 is not installed, no region is named, or an address is invalid.
    """
    services = ("sagemaker", "s3", "application-autoscaling", "cloudwatch")
    return Account(*(open_client(service, TIMEOUTS) for service in services))


def open_without_retries(service: str, timeout: float, connections: int = 10) -> Any:
    """A client whose calls end after `timeout` seconds, for so many threads. Raises InputError as `open_account`."""
    limits = {"connect_timeout": timeout, "read_timeout": timeout, "retries": {"total_max_attempts": 1}}
    return open_client(service, limits | {"max_pool_connections": connections})


def open_client(service: str, settings: Mapping[str, object], url: str | None = None) -> Any:
    """A client with settings of botocore, at `url` or else that of the region. Raises InputError as `open_account`."""
    need("aws", service)
    import boto3
    from botocore.config import Config

    try:
        with clear("AWS"):
            client = boto3.client(service, config=Config(**settings), endpoint_url=url)
            _ = urlsplit(client.meta.endpoint_url).port  # botocore would check it at the first call only
            return client
    except ValueError as problem:
        what = "a setting such as AWS_ENDPOINT_URL" if url is None else f"the URL {url!r}"
        raise InputError(f"AWS: {what} can't be used: {problem}") from problem


@contextmanager
def clear(doing: str) -> Iterator[None]:
    """Convert errors of AWS: Raises InputError, which names the action `doing`, where a call fails."""
    try:
        yield
    except Exception as problem:
        if not type(problem).__module__.startswith(("botocore", "boto3")):
            raise
        raise InputError(f"{doing}: {_message(problem)}") from problem


def describe(ask: Callable[..., Mapping[str, Any]], doing: str, **words: object) -> Mapping[str, Any] | None:
    """The description of a resource, or None where it does not exist."""
    with clear(doing):
        try:
            return ask(**words)
        except Exception as problem:
            error = _error(problem)
            message = error.get("Message", "").lower()
            if error.get("Code") in _MISSING or "could not find" in message or "does not exist" in message:
                return None
            raise


def pages(client: AwsClient, operation: str, what: str, **words: object) -> Iterator[Mapping[str, Any]]:
    """What an operation lists, from all of its pages."""
    for page in client.get_paginator(operation).paginate(**words):
        yield from page[what]


def carried(client: AwsClient, verb: str, described: Mapping[str, Any]) -> dict[str, Any]:
    """All that an operation takes of what was described: also what AWS added after this was written."""
    sdk: Any = client.meta
    taken = sdk.service_model.operation_model(verb).input_shape.members
    return {name: of for name, of in described.items() if name in taken and of is not None and of != []}


def error_code(problem: Exception) -> str:
    """AWS's code of an error, as ThrottlingException; empty where it has none."""
    return str(_error(problem).get("Code", ""))


def _error(problem: Exception) -> Mapping[str, str]:
    error: Mapping[str, str] = (getattr(problem, "response", None) or {}).get("Error", {})
    return error


def _message(problem: Exception) -> str:
    error = _error(problem)
    message = f"{error.get('Code')}: {error.get('Message')}" if error else str(problem)
    if error.get("Code") == "AccessDenied" and getattr(problem, "operation_name", "") == "GetObject":
        message += _HIDDEN
    return " ".join(message.split()) + _NEXT.get(type(problem).__name__, "")
