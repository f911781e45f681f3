"""Batch answers in a key-value store: all of a run or nothing of it, whatever the store leaves undone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firstspin.cloud.stores import ITEMS_A_CALL, DynamoScores, Malformed, SqliteScores, open_scores
from firstspin.records import InputError, Kept, Ranking


def answer(genre: str) -> Ranking:
    return Ranking((genre, "Other"), (0.75, 0.25), "model")


def batches(genre: str, users: int = 60) -> Iterator[tuple[list[str], list[Ranking]]]:
    yield [f"u{i}" for i in range(users)], [answer(genre)] * users


class Table:
    """A DynamoDB table at its worst: takes 25 items a call and leaves a third of them unprocessed."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls = 0

    def batch_write_item(self, RequestItems: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        ((name, requests),) = RequestItems.items()
        assert len(requests) <= ITEMS_A_CALL
        self.calls += 1
        taken = requests[: -(len(requests) // 3)] if len(requests) >= 3 else requests
        for request in taken:
            self.put_item(name, request["PutRequest"]["Item"])
        left = requests[len(taken) :]
        return {"UnprocessedItems": {name: left} if left else {}}

    def put_item(self, TableName: str, Item: dict[str, Any]) -> None:  # noqa: ARG002
        self.items[Item["user_id"]["S"], Item["version"]["S"]] = Item

    def get_item(self, TableName: str, Key: dict[str, Any], ConsistentRead: bool) -> dict[str, Any]:  # noqa: ARG002
        assert ConsistentRead
        item = self.items.get((Key["user_id"]["S"], Key["version"]["S"]))
        return {"Item": item} if item else {}


@pytest.fixture(params=["sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteScores | DynamoScores:
    if request.param == "sqlite":
        return SqliteScores(tmp_path / "scores.db")
    return DynamoScores("scores", Table(), sleep=lambda _: None, rng=np.random.default_rng(0))


def test_every_answer_can_be_read_back(store: SqliteScores | DynamoScores) -> None:
    store.write("3f2a9c1b.20261123T040000", batches("Rock"))
    assert [store.get(f"u{i}") for i in range(60)] == [
        Kept("3f2a9c1b", Ranking(("Rock", "Other"), (0.75, 0.25), "batch"))
    ] * 60
    assert store.get("nobody") is None


def test_an_empty_store_knows_nobody(store: SqliteScores | DynamoScores) -> None:
    assert store.get("u1") is None


def test_a_run_is_seen_only_when_it_is_whole(store: SqliteScores | DynamoScores) -> None:
    store.write("one", batches("Rock"))

    def broken() -> Iterator[tuple[list[str], list[Ranking]]]:
        yield from batches("Jazz", 30)
        seen = store.get("u1")
        assert seen is not None
        assert seen.ranking.genres[0] == "Rock"  # half of the new run lies there, unseen
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        store.write("two", broken())
    still = store.get("u1")
    assert still is not None
    assert still.ranking.genres[0] == "Rock"
    store.write("three", batches("Jazz"))
    now = store.get("u1")
    assert now is not None
    assert now.ranking.genres[0] == "Jazz"


def test_a_user_who_is_scored_twice_has_the_later_answer(store: SqliteScores | DynamoScores) -> None:
    store.write("one", iter([(["u", "u"], [answer("Rock"), answer("Jazz")])]))
    found = store.get("u")
    assert found is not None
    assert found.ranking.genres[0] == "Jazz"


@pytest.mark.parametrize(
    "row",
    [
        b"{",
        None,
        b'{"genres":[],"probabilities":[],"source":"model"}',
        b'{"genres":["Rock","Jazz"],"probabilities":[0.5],"source":"model"}',
        b'{"genres":["Rock","Rock"],"probabilities":[0.5,0.5],"source":"model"}',
        b'{"genres":["Rock"],"probabilities":[1.1],"source":"model"}',
        b'{"genres":["Rock"],"probabilities":[-0.1],"source":"model"}',
    ],
    ids=["no JSON", "empty", "no genre", "two lengths", "a genre twice", "over 1", "under 0"],
)
def test_a_malformed_row_is_nobodys_answer(row: bytes | None, store: SqliteScores | DynamoScores) -> None:
    store.write("one", batches("Rock", 1))
    if isinstance(store, DynamoScores):
        store._client.items["u0", "one"]["answer"] = {"NULL": True} if row is None else {"B": row}
    else:
        store._connection.execute("UPDATE scores SET answer = ?", [row])
    with pytest.raises(Malformed):
        store.get("u0")


def test_a_table_that_takes_nothing_is_an_error_and_the_old_run_stays() -> None:
    table = Table()
    store = DynamoScores("scores", table, sleep=lambda _: None)
    store.write("one", batches("Rock"))
    table.batch_write_item = lambda RequestItems: {"UnprocessedItems": RequestItems}  # type: ignore[method-assign]
    with pytest.raises(InputError, match="left 25 items unwritten"):
        store.write("two", batches("Jazz"))
    still = store.get("u1")
    assert still is not None
    assert still.ranking.genres[0] == "Rock"


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="is no store"):
        open_scores("redis:scores")
