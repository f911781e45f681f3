from __future__ import annotations

from datetime import UTC, datetime

import boto3
import pytest
from botocore.stub import Stubber

from firstspin.aws.clients import clear, open_client, pages
from firstspin.records import InputError


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "eu-north-1")


def test_all_pages_are_read_and_an_empty_one_is_not_the_last() -> None:
    client = boto3.client("sagemaker")
    with Stubber(client) as stubber:
        for names, asked, further in ((["one"], "", "b"), ([], "b", "c"), (["two"], "c", "")):
            listed = [
                {"ModelName": name, "ModelArn": "a" * 20, "CreationTime": datetime(2026, 1, 1, tzinfo=UTC)}
                for name in names
            ]
            token = {"NextToken": further} if further else {}
            stubber.add_response("list_models", {"Models": listed, **token}, {"NextToken": asked} if asked else {})
        assert [one["ModelName"] for one in pages(client, "list_models", "Models")] == ["one", "two"]


def test_a_list_that_never_ends_is_an_error() -> None:
    client = boto3.client("sagemaker")
    with Stubber(client) as stubber:
        stubber.add_response("list_models", {"Models": [], "NextToken": "b"}, {})
        stubber.add_response("list_models", {"Models": [], "NextToken": "b"}, {"NextToken": "b"})
        with pytest.raises(InputError, match=r"^models: .*same next token"), clear("models"):
            list(pages(client, "list_models", "Models"))


def test_an_invalid_url_is_named() -> None:
    with pytest.raises(InputError, match=r"^AWS: the URL 'localhost' can't be used: Invalid endpoint: localhost$"):
        open_client("firehose", {}, "localhost")
    with pytest.raises(InputError, match=r"^AWS: the URL 'http://localhost:x' can't be used: "):
        open_client("firehose", {}, "http://localhost:x")
