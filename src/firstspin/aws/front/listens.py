"""A user's latest listens for the Lambda, from a DynamoDB table that the customer's own pipeline writes.

What `firstspin events forward` sends is pseudonymised, and Firehose has no lookup by user. So the table is one of raw
user ids, as that of the stored answers: the Lambda reads it and nothing here writes to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from firstspin.records import MAX_LISTENS, MAX_SECONDS, Listen, Listens
from firstspin.serving.score_stores import MalformedRow

LISTENS_TABLE: Final = "FIRSTSPIN_LISTENS"


class DynamoListens:
    """A table with the keys `user_id` (hash, text) and `at` (range, such as ISO 8601 text in UTC), an item a listen.

    An item has `station_id` (text), and `seconds` (number) or `skipped` (true).
    """

    def __init__(self, table: str, client: Any) -> None:
        self._table, self._client = table, client

    def get(self, user_id: str) -> Listens | None:
        """The latest 200 listens, oldest first, by one consistent read; None where there are none.

        Raises MalformedRow where an item is no listen.
        """
        found = self._client.query(
            TableName=self._table,
            KeyConditionExpression="user_id = :user",
            ExpressionAttributeValues={":user": {"S": user_id}},
            ScanIndexForward=False,
            Limit=MAX_LISTENS,
            ConsistentRead=True,  # without it, the items of an erased user may come back
        )
        return tuple(map(_listen, reversed(found["Items"]))) or None


def _listen(item: Mapping[str, Mapping[str, Any]]) -> Listen:
    try:
        listen: dict[str, object] = {"station_id": item["station_id"]["S"]}
        if "seconds" in item:
            listen["seconds"] = min(float(item["seconds"]["N"]), MAX_SECONDS)
        if "skipped" in item:
            listen["skipped"] = item["skipped"]["BOOL"]
        return msgspec.convert(listen, Listen)
    except (KeyError, TypeError, ValueError, msgspec.ValidationError):
        raise MalformedRow from None
