"""Text, bytes and JSON of the kinds that break parsers."""

from __future__ import annotations

import json

from fuzz.inputs import Input

MARK = "zq7mark"
"""Stands in values that no error may repeat."""

CANARY = "canary"
"""A file of this name in the working folder means that text of an input ran as code."""


def _words(text: str) -> list[str]:
    return text.split()


NUMBERS = (
    *_words(
        "0 -0 1 -1 31 31.0 31.5 120 121 1e2 1e400 -1e400 1e-400 0x1f 1_000 1,200 1.200,5 1/2 +5 --5 5- NaN "
        "nan inf -Infinity 1d 1f 9999999999999999999 9999999999999999999999999999999999999999 "
        "000000000000000000000000000000000000000000000000007 170141183460469231731687303715884105728"
    ),
    *("९", "٣١", "３１", "½", "9" * 400, "1" + "0" * 308),
)
TIMES = (
    *_words(
        "2026-01-01T00:00:00Z 2026-01-01T00:00Z 2026-01-01t00:00:00z 2026-01-01 2026-01-01T00:00:00 "
        "2026-01-01T00:00:00+02:00 2026-01-01T00:00:00+25:00 2026-01-01T24:00:00Z 2026-02-30T00:00:00Z "
        "2026-01-01T23:59:60Z 2026-01-01T00:00:00.123456789Z 2026-01-01T00:00:00,5Z 9999-12-31T23:59:59Z "
        "0001-01-01T00:00:00Z 0000-01-01T00:00:00Z -0044-03-15T00:00:00Z 294247-01-10T04:00:54.775Z "
        "10000-01-01T00:00:00Z infinity -infinity epoch now today 1767225600 1767225600000 45000 01/02/2026 "
        "2026-W01-1 2026-001 T00:00Z 20260101T000000Z 2026-1-1T0:0:0Z 2026-01-01T00:00:00Zoo"
    ),
    *("2026-01-01 00:00:00 UTC", "290309-12-22 (BC) 00:00:00Z", " 2026-01-01T00:00:00Z "),
    *("2026-01-01T00:00:00Z\x00",),
)
WORDS = (
    *_words(
        "NA N/A NULL null None true FALSE yes - undefined Rock rock ROCK Rock|Jazz Rock|Rock | || |Rock| "
        "Rock,Jazz [Rock] male Female US us U.S. 007 7 =1+1 +1 -1 @SUM(A1) ' '' ; -- /* */ $$ ` % %s {} {0} "
        "${x} ? :x $1 ../../etc/passwd /dev/zero file:///etc/passwd http://127.0.0.1:1/x s3://b/k con.csv"
    ),
    *("", " ", "\\N", "[object Object]", " Rock ", '["Rock"]', "\t=1", '"', '""', "\\", "\x00", "a\x00b"),
    *("\r", "\n", "\r\n", "\t", "\x1b[31mred", "\x07", "\x7f", "\x85", "\u2028", "\ufeff", "\u200b"),
    *("\u202e", "e\u0301", "é", "İ", "ſ", "ß", "\ufdfa" * 12, "👩\u200d👩\u200d👧\u200d👦", "𝕽𝖔𝖈𝖐", "\U0010ffff"),
    *("\uffff", "a" * 200, "a" * 201, "é" * 200, "x" * 70_000, MARK, "C:\\x"),
)
SQL = (
    "x'; COPY (SELECT 1) TO 'canary'; --",
    "x\"; COPY (SELECT 1) TO 'canary'; --",
    "market\" AS zz, row FROM received; COPY (SELECT 1) TO 'canary' (FORMAT csv); SELECT \"popularity",
    "a\" FROM read_csv('/etc/passwd'); --",
    "'||(SELECT 1)||'",
    'x" AS "user_id',
    "); DROP TABLE registrations; --",
    "x'); COPY (SELECT 1) TO 'canary'; --",
    "{x: 'VARCHAR'}, filename = true, a = {b",
    "a' : 'VARCHAR', 'b",
)
NAMES = (
    *_words(
        "user_id registered_at age gender country genres started_at station_id seconds name genre row broken "
        "dropped fates received registrations listens stations top_genre played market popularity available "
        "instances probabilities User_ID USER_ID AGE column0 column1 filename hive rowid arm unit arms v0 p0 "
        "c0 day select from order class def self __class__ __slots__ None device-type a.b a* * 1 1.5 - -- ' "
        "lambda %s {x} $x ? a,b a;b a|b [a] a:b a=b"
    ),
    *("user_id ", "", " ", "row of the file", "a b", "a" * 300, "n" * 10_000, '"', '""', "a\nb", "a\r\nb"),
    *("a\tb", "a\x00b", "\x00", "\ufeff", "user_id\u200b", "üser", "🎵", "\u202e", "\\"),
    *SQL,
)
ALPHABETS = (
    "abcXYZ019 _-",
    "\"',;|\n\r\t\\ =+-@",
    "(){}[]<>*&^%$#!~`?/:.",
    "äßçéîñøДЖ中文字عرب",
    "\0\x01\x08\x1b\x7f\x80\x9f\xa0\u2028\u2029\ufeff\u200b\u202e\ufffe\ufdfa",
    "🎵👩🏽𝕏\U0010ffff",
)
BYTES = b"\x00\xff\xfe\x80\"',;|\n\r\t\\ 0-9{}[]:"


def text(made: Input, longest: int = 12) -> str:
    """Random text out of one alphabet or two."""
    letters = made.pick(ALPHABETS) + (made.pick(ALPHABETS) if made.chance(0.3) else "")
    return "".join(made.random.choices(letters, k=made.number(0, longest)))


def cell(made: Input) -> str:
    """What may stand in a field of a table or request."""
    kind = made.number(0, 9)
    if kind < 3:
        return made.pick(WORDS)
    if kind < 5:
        return made.pick(NUMBERS)
    if kind < 7:
        return made.pick(TIMES)
    if kind == 7:
        return made.pick(SQL)
    return text(made)


def name(made: Input) -> str:
    """What may name a column, a field or an option's value."""
    kind = made.number(0, 9)
    if kind < 7:
        return made.pick(NAMES)
    if kind == 7:
        return cell(made)
    return text(made)


def mutated(made: Input, content: bytes, most: int = 4) -> bytes:
    """The bytes with a few changes: replaced, inserted, deleted, repeated, moved or cut off."""
    changed = bytearray(content)
    for _ in range(made.number(1, most)):
        at, end = sorted((made.number(0, len(changed)), made.number(0, len(changed))))
        end = min(end, at + made.pick((1, 2, 8, 64, 1 << 20)))
        kind = made.number(0, 6)
        if kind == 0:
            changed[at:end] = made.random.randbytes(end - at)
        elif kind == 1:
            changed[at:at] = bytes([made.pick(BYTES)]) * made.pick((1, 1, 1, 2, 5))
        elif kind == 2:
            del changed[at:end]
        elif kind == 3:
            changed[at:at] = changed[at:end] * made.pick((1, 2, 20))
        elif kind == 4 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << made.number(0, 7)
        elif kind == 5:
            changed[at:at] = cell(made).encode("utf-8", "surrogatepass")
        elif made.chance(0.3):
            del changed[at:]
    return bytes(changed)


def json_value(made: Input, depth: int = 3) -> object:
    """Anything that JSON can hold, and NaN."""
    kind = made.number(0, 11 if depth else 8)
    if kind < 3:
        return cell(made)
    if kind == 3:
        return made.pick((None, True, False))
    if kind == 4:
        return made.pick((0, -1, 31, 121, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400))
    if kind == 5:
        return made.pick((0.0, -0.0, 31.0, 30.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")))
    if kind == 6:
        return made.pick(("\ud800", "\udfff x", MARK, ""))
    if kind < 9:
        return name(made)
    if kind == 9:
        return [json_value(made, depth - 1) for _ in range(made.number(0, 4))]
    return {name(made): json_value(made, depth - 1) for _ in range(made.number(0, 4))}


def as_json(made: Input, value: object) -> bytes:
    """Written down: as ASCII with escapes or as UTF-8, with or without spaces, with NaN as Python writes it."""
    ascii_only = made.chance(0.5)
    separators = made.pick(((",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")))
    return json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")
