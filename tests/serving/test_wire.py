"""Bodies become records by strict rules, and no error repeats what was sent."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firstspin.records import Ranking, Registration
from firstspin.serving.bodies import wire
from firstspin.serving.bodies.encodings import Encoding, check_accept, csv_row, encoding_of
from firstspin.serving.bodies.limits import AT_ONCE, MAX_BODY_BYTES
from firstspin.serving.bodies.wire import BodyReader, LongBody, ParsedBody, join
from firstspin.serving.refusal import Refusal

reader = BodyReader()
settings.register_profile("shared", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")  # tests never judge time: the machine is shared
WOMAN = Registration(age=31, gender="female", country="US", genres=("Rock", "Jazz"))


def refused(body: bytes, encoding: Encoding = Encoding.json, reader: BodyReader = reader) -> tuple[int, str, str]:
    with pytest.raises(Refusal) as caught:
        reader.read(body, encoding)
    return caught.value.status, caught.value.code, caught.value.message


def status(body: bytes, encoding: Encoding, reader: BodyReader = reader) -> int:
    try:
        reader.read(body, encoding)
    except Refusal as refusal:
        return refusal.status
    return 200


def test_one_object_is_one_registration() -> None:
    asked = reader.read(b'{"age":31,"gender":"female","country":"US","genres":["Rock","Jazz"]}', Encoding.json)
    assert asked.alone
    assert [(r.age, r.gender, r.country, r.genres) for r in asked.registrations] == [
        (31, "female", "US", ("Rock", "Jazz"))
    ]


def test_every_field_may_be_missing_or_null() -> None:
    body = b'{"age":null,"gender":null,"country":null,"genres":null}'
    for empty in (b"{}", body, b'{"gender":" ","country":"","genres":["",null," "]}'):
        (asked,) = reader.read(empty, Encoding.json).registrations
        assert (asked.age, asked.gender, asked.country, asked.genres) == (None, None, None, ())
        assert reader.read(empty, Encoding.lines).registrations == [Registration()]
    asking = BodyReader({"device": "text", "visits": "number"})
    for asked in (
        asking.read(b'{"device":null,"visits":null}', Encoding.json).registrations[0],
        asking.read(b"device,visits\n ,NaN\n", Encoding.csv).registrations[0],
    ):
        assert (asked.device, asked.visits) == (None, None)  # type: ignore[attr-defined]


def test_instances_lines_and_rows_keep_their_order() -> None:
    several = reader.read(b'{"instances":[{"age":31},{},{"genres":["Jazz"]}]}', Encoding.json)
    lines = reader.read(b'{"age":31}\r\n{}\n\n{"genres":["Jazz"]}\n', Encoding.lines)
    rows = reader.read(b"31,,,\r\n,,,\n\n,,,Jazz\n", Encoding.csv)
    assert several.registrations == tuple(lines.registrations) == tuple(rows.registrations)
    assert not several.alone


def test_a_csv_header_is_recognised_by_its_names_and_may_reorder() -> None:
    body = "\ufeffgenres,Age,country,gender\nRock|Jazz,31,US,female\n".encode()
    assert reader.read(body, Encoding.csv).registrations == [WOMAN]
    assert reader.read(b"age\n31\n", Encoding.csv).registrations == [Registration(age=31)]


TABLE = "user_id,registered_at,age,gender,country,genres"


@pytest.mark.parametrize(
    "body",
    [
        f"{TABLE}\n007,2026-01-01T00:00:00Z,31.0,female,US,Rock|Jazz\n",
        f"\ufeff{TABLE}\r\n\r\n007,2026-01-01T00:00:00Z,31,female,US,Rock|Jazz\r\n\r\n",
        f"\n \n{TABLE}\n007,whatever is here,31,female,US,Rock|Jazz\n  \n",
        f'{TABLE},device,"a, b"\n007,2026-01-01T00:00:00Z,31, female ,US,Rock| |Jazz,phone,"x, y"\n',
        "Country,GENRES,Gender,age,User_ID,,device\nUS,Rock|Jazz,female,31,7,,phone\n",
        '"age","registered_at","gender","country","genres"\n"31","","female","US","Rock|Jazz"\n',
        "007,2026-01-01T00:00:00Z,31,female,US,Rock|Jazz\n",
        "genres,user_id,age,gender,country,genre\nRock|Jazz,007,31,female,US,Pop",
    ],
)
def test_the_table_of_registrations_is_answered_and_its_other_columns_are_ignored(body: str) -> None:
    assert reader.read(body.encode(), Encoding.csv).registrations == [WOMAN]


def test_further_columns_of_a_table_are_asked_for_by_name() -> None:
    asking = BodyReader({"Device": "text", "visits": "number"})
    rows = "007,2026-01-01T00:00:00Z,31,female,US,Rock,phone,5"
    for header in (f"{TABLE},Device,visits\n", f"{TABLE},device,VISITS\n", ""):
        (asked,) = asking.read(f"{header}{rows}\n".encode(), Encoding.csv).registrations
        assert (asked.age, asked.genres, asked.Device, asked.visits) == (31, ("Rock",), "phone", 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "header",
    [
        "id,when,years\n",
        "ages,gender,country,genres\n",
        "ages,gender,country,genres,device\n",
        "age,gender,country,genres,age\n",
        "user_id,age,secret\n",
        "secret\n",
    ],
)
def test_a_header_that_misses_what_is_asked_for_beside_other_names_is_refused(header: str) -> None:
    width = header.count(",") + 1
    status, code, message = refused(f"{header}{','.join(['31'] * width)}\n".encode(), Encoding.csv)
    assert (status, code) == (422, "invalid")
    assert message.startswith("line 1: ")
    assert not any(word in message for word in ("secret", "ages", "years"))


def test_further_fields_are_text_or_numbers_as_training_saw_them() -> None:
    asking = BodyReader({"device": "text", "visits": "number"})
    from_json = asking.read(b'{"device":"5","visits":5}', Encoding.json).registrations[0]
    from_csv = asking.read(b"device,visits\n5,5\n", Encoding.csv).registrations[0]
    assert [(r.device, r.visits) for r in (from_json, from_csv)] == [("5", 5.0)] * 2  # type: ignore[attr-defined]
    for wrong in (b'{"device":5}', b'{"visits":"5"}', b'{"visits":true}'):
        assert refused(wrong, reader=asking)[:2] == (422, "invalid")
    for cell in ("five", "1,200", "0x1f", "inf", "1e400"):
        said = refused(f'visits\n"{cell}"\n'.encode(), Encoding.csv, asking)
        assert said == (422, "invalid", "line 2: visits is not a number")


def test_users_come_with_their_id() -> None:
    asking = BodyReader(of_users=True)
    assert asking.read(b'{"user_id":"007","age":31}', Encoding.json).registrations[0].user_id == "007"  # type: ignore[attr-defined]
    two = asking.read(b'{"instances":[{"user_id":"1"},{"user_id":"2"}]}', Encoding.json)
    assert [r.user_id for r in two.registrations] == ["1", "2"]  # type: ignore[attr-defined]
    assert refused(b"{}", reader=asking)[:2] == (422, "invalid")
    assert refused(b'{"instances":[{}]}', reader=asking)[:2] == (422, "invalid")
    assert refused(b'{"user_id":"1","instances":[]}', reader=asking)[:2] == (422, "invalid")


NOT_JSON = (b"", b" ", b"{", b'{"age":3', b'{"age":NaN}', b'{"age":Infinity}', b"{} {}", b"age=31", b"\x16\x03\x01")
NOT_UTF8 = (b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"gender":"\xff"}', b'{"gender":"\\ud800"}', b'{"gender":"\\udc00 on"}')


@pytest.mark.parametrize("body", NOT_JSON + NOT_UTF8)
def test_cases_1_to_3_what_is_not_json_is_400(body: bytes) -> None:
    assert refused(body)[:2] == (400, "malformed")


@pytest.mark.parametrize("body", [b"[]", b"[", b"null", b'"31"', b"31", b"true"])
def test_case_1_json_that_is_not_an_object_is_400(body: bytes) -> None:
    assert refused(body)[:2] == (400, "not_an_object")


WRONG_AGES = (b'"30"', b"true", b"30.5", b"1e400", b"9" * 5000, b"-1", b"121", b"{}", b"[" * 100_000)
WRONG_FIELDS = (b'"genres":"Rock"', b'"genres":[1]', b'"genres":[[', b'"gender":"%b"' % (b"x" * 201))


@pytest.mark.parametrize("age", WRONG_AGES)
def test_cases_2_4_5_and_7_an_impossible_age_is_422(age: bytes) -> None:
    assert refused(b'{"age":' + age + b"}")[:2] == (422, "invalid")


@pytest.mark.parametrize("field", [*WRONG_FIELDS, b'"born":"2031-01-01"', b'"x":' + b"[" * 100_000, b'"user_id":"7"'])
def test_cases_4_and_5_what_is_no_registration_is_422(field: bytes) -> None:
    assert refused(b"{" + field + b"}")[:2] == (422, "invalid")


@pytest.mark.parametrize("age", ["31.0", "31", "3.1e1", "31.", " 31 ", "+31", "031"])
def test_a_whole_number_is_an_age_however_it_is_written(age: str) -> None:
    assert reader.read(f"{age},female,US,Rock|Jazz\n".encode(), Encoding.csv).registrations == [WOMAN]
    if age in ("31.0", "31", "3.1e1"):  # numbers in JSON
        (asked,) = reader.read(f'{{"age":{age}}}'.encode(), Encoding.json).registrations
        assert (asked.age, type(asked.age)) == (31, int)


def test_case_4_of_a_key_given_twice_the_last_counts_and_ten_thousand_genres_are_refused() -> None:
    assert reader.read(b'{"age":1,"age":31}', Encoding.json).registrations[0].age == 31
    many = json.dumps({"genres": ["g"] * 10_000}).encode()
    assert refused(many)[:2] == (422, "invalid")
    assert refused(b'{"instances":[' + b"{}," * 10_000 + b"{}]}")[:2] == (413, "too_many_instances")
    assert refused(b"{}\n" * 10_001, Encoding.lines)[:2] == (413, "too_many_instances")


def test_how_many_may_be_asked_about_is_a_setting() -> None:
    assert len(BodyReader(max_instances=None).read(b"{}\n" * 10_001, Encoding.lines).registrations) == 10_001
    with pytest.raises(Refusal, match="at most 2 newcomers"):
        BodyReader(max_instances=2).read(b"{}\n{}\n{}\n", Encoding.lines)


@pytest.mark.parametrize("cell", ["30.5", "true", "thirty", "-1", "121", "9" * 5000, "0x1f", "3 1", "inf"])
def test_case_5_csv_is_as_strict_as_json(cell: str) -> None:
    assert refused(f"{cell},,,\n".encode(), Encoding.csv)[:2] == (422, "invalid")


@pytest.mark.parametrize("body", [b"31,female\n", b"31,female,US,Rock,more\n"])
def test_a_csv_row_has_the_cells_of_the_header(body: bytes) -> None:
    assert refused(body, Encoding.csv)[:2] == (422, "invalid")


@pytest.mark.parametrize("body", [b'31,"fem,US,Rock', b"\xff,,,", b"\x00,,,", b'"a"b,,,', b",,," + b"x" * 200_000])
def test_what_is_not_csv_is_400(body: bytes) -> None:
    assert refused(body, Encoding.csv)[0] in (400, 422)


def test_a_body_with_no_registration_is_refused() -> None:
    assert refused(b"\n\n", Encoding.lines)[:2] == (400, "empty")
    assert refused(b"age,gender,country,genres\n", Encoding.csv)[:2] == (400, "empty")


def test_errors_name_the_place_and_never_repeat_what_was_sent() -> None:
    assert refused(b'{"instances":[{},{"age":"secret31"}]}')[2].endswith("at `instances[1].age`")
    assert refused(b'{}\n{"age":"secret31"}\n', Encoding.lines)[2].startswith("line 2: ")
    for body in (b'{"secret31":1}', b'{"gender":{"secret31":1}}', b'{"genres":["a",{"secret31":[]}]}', b"secret31"):
        assert "secret31" not in refused(body)[2]
    assert "secret31" not in refused(b"secret31,,,\n", Encoding.csv)[2]


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", Encoding.json),
        ("application/json", Encoding.json),
        ("Application/JSON; charset=UTF-8", Encoding.json),
        ("application/x-ndjson", Encoding.lines),
        ("application/jsonlines", Encoding.lines),
        ("text/csv; header=present", Encoding.csv),
    ],
)
def test_content_types_name_encodings(header: str, encoding: Encoding) -> None:
    assert encoding_of(header) is encoding


@pytest.mark.parametrize("header", ["text/plain", "application/x-npy", "application/json; charset=latin-1", "json"])
def test_case_11_other_content_types_are_415(header: str) -> None:
    with pytest.raises(Refusal, match="415"):
        encoding_of(header)


def test_case_11_an_answer_in_another_encoding_is_406() -> None:
    for fine in ("*/*", "application/*", "text/html, application/json;q=0.9", "application/json"):
        check_accept(fine, Encoding.json)
    for other in ("text/html", "application/json;q=0", "image/*", ""):
        with pytest.raises(Refusal, match="406"):
            check_accept(other, Encoding.json)


def test_answers_are_joined_as_the_question_was_written() -> None:
    one, two = b'{"a":1}', b'{"b":2}'
    assert join([one], ParsedBody((WOMAN,), Encoding.json, alone=True)) == one
    assert join([one, two], ParsedBody((WOMAN,) * 2, Encoding.json)) == b'{"predictions":[{"a":1},{"b":2}]}'
    assert join([one, two], ParsedBody((WOMAN,) * 2, Encoding.lines)) == b'{"a":1}\n{"b":2}\n'
    assert csv_row(Ranking(("Rock", 'R, "n" B'), (0.75, 0.25), "model")) == b'"Rock|R, ""n"" B",0.75|0.25'


READERS = [reader, BodyReader({"device": "text", "visits": "number"}), BodyReader(of_users=True)]
WORDS = ("age", "genres", "User_ID", "registered_at", "visits", "31.0", "2026-01-01T00:00Z", "NaN", "Rock|Jazz")
PIECES = st.sampled_from([*WORDS, ",", "\n", "\r\n", '"', " ", "|", "\ufeff"]) | st.text(max_size=3)
LIKE_CSV = st.lists(PIECES, max_size=40).map("".join).map(str.encode)


@given(st.binary(max_size=200) | LIKE_CSV, st.sampled_from(Encoding), st.sampled_from(READERS))
def test_any_bytes_are_read_or_refused(body: bytes, encoding: Encoding, reader: BodyReader) -> None:
    assert status(body, encoding, reader) in (200, 400, 413, 422)


def listed(body: bytes | bytearray, encoding: Encoding, reader: BodyReader = reader) -> list[Registration]:
    """Everyone a body asks about, read in pieces where it is long."""
    begun = reader.begin(body, encoding)
    return [registration for piece in begun.pieces() for registration in piece]


def found(read: Callable[[], list[Registration]]) -> list[Registration] | tuple[int, str, str]:
    try:
        return read()
    except Refusal as refusal:
        return refusal.status, refusal.code, refusal.message


REGISTRATIONS = st.fixed_dictionaries(
    {},
    optional={
        "age": st.none() | st.integers(-1, 121),
        "gender": st.text(max_size=3),
        "genres": st.lists(st.text('aé",}{[]|\n\r\\', max_size=3), max_size=3),
        "device": st.text(max_size=3),
        "else": st.none(),
    },
)


def as_csv(told: list[dict[str, object]]) -> str:
    lines = io.StringIO()
    names = ["age", "gender", "genres"]
    writer = csv.DictWriter(lines, names, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(row | {"genres": "|".join(row.get("genres", ()))} for row in told)  # type: ignore[call-overload]
    return lines.getvalue()


@given(st.lists(REGISTRATIONS, max_size=4), st.booleans(), st.sampled_from(["", " ", "\n", "\n\r\n \n"]), st.data())
def test_a_body_in_pieces_says_what_it_says_as_a_whole(
    told: list[dict[str, object]], escaped: bool, space: str, data: st.DataObject
) -> None:
    asking = BodyReader({"device": "text"})
    written = [json.dumps(one, ensure_ascii=escaped) for one in told]
    bodies = {
        Encoding.json: f'{space}{{"instances":{space}[{f",{space}".join(written)}]{space}}}{space}',
        Encoding.lines: space + f"\n{space}".join(written) + space,
        Encoding.csv: space + as_csv(told) + space,
    }
    for encoding, text in bodies.items():
        whole = text.encode()
        cut = data.draw(st.integers(0, len(whole)))
        for body in (whole, whole[:cut], bytearray(whole)):
            at_once = found(partial(listed, body, encoding, asking))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(wire, "SHORT", -1)
                in_pieces = found(partial(listed, body, encoding, asking))
            if isinstance(at_once, list) or body is whole:
                assert in_pieces == at_once
            else:  # cut off: where that is seen first, the other error may come before it
                assert in_pieces[0] in (400, 422)


def long(before: bytes, repeated: bytes, after: bytes = b"") -> bytes:
    """A body of the largest size that is allowed."""
    return before + repeated * ((MAX_BODY_BYTES - len(before) - len(after)) // len(repeated)) + after


PEOPLE = b'{"genres":[%b]}' % b",".join(b'"%d"' % i for i in range(100))
MANY = BodyReader(max_instances=None)
LISTS = [  # 5,000 users with their picks in memory would take 30 MB
    (b'{"instances":[' + b",".join([PEOPLE] * 5_000) + b"]}", Encoding.json, 5_000),
    ((PEOPLE + b"\n") * 5_000, Encoding.lines, 5_000),
    (b",,,%b\n" % b"|".join(b"%d" % i for i in range(100)) * 5_000, Encoding.csv, 5_000),
    (b"\n" * 3_000_000 + b"{}", Encoding.lines, 1),
    (b"\r\n" * 3_000_000 + b"31,,,", Encoding.csv, 1),
    (b'{"instances":[' + b",".join([b"{}"] * 100_000) + b"]}", Encoding.json, 100_000),
    (b"{}\n" * 20_000, Encoding.lines, 20_000),
    (b",,,\n" * 20_000, Encoding.csv, 20_000),
]


@pytest.mark.parametrize(("body", "encoding", "number"), LISTS)
def test_a_long_list_is_read_in_pieces_and_only_one_is_in_memory(body: bytes, encoding: Encoding, number: int) -> None:
    tracemalloc.start()
    begun = MANY.begin(body, encoding)
    assert isinstance(begun, LongBody)
    pieces = []
    for piece in begun.pieces():
        pieces.append(len(piece))
        del piece
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (sum(pieces), max(pieces) <= AT_ONCE, MANY.max_number(body, encoding) >= number) == (number, True, True)
    assert len(pieces) >= number / AT_ONCE
    assert peak < MAX_BODY_BYTES * 2


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (long(b'{"instances":[', b"{},", b"{}]}"), Encoding.json, "too_many_instances"),
        (long(b'{"instances":[', b"1,", b"1]}"), Encoding.json, "invalid"),
        (long(b'{"instances":[', b"["), Encoding.json, "invalid"),
        (long(b'{"instances":[{"age":', b"["), Encoding.json, "malformed"),
        (long(b'{"genres":[', b'"a",', b'"a"]}'), Encoding.json, "invalid"),
        (long(b'{"instances":[{"genres":[', b'"a",', b'"a"]}]}'), Encoding.json, "invalid"),
        (long(b'{"instances":[{}],"age":31', b" ", b"}"), Encoding.json, "invalid"),
        (long(b'{}\n{"genres":[', b'"a",', b'"a"]}'), Encoding.lines, "invalid"),
        (long(b"{}\n", b"{"), Encoding.lines, "invalid"),
        (long(b"", b"{}\n"), Encoding.lines, "too_many_instances"),
        (long(b"", b"\n"), Encoding.lines, "empty"),
        (long(b"", b"\n"), Encoding.csv, "empty"),
        (long(b"", b","), Encoding.csv, "invalid"),
        (long(b"", b'"\n",'), Encoding.csv, "invalid"),
        (long(b'"', b"\n"), Encoding.csv, "invalid"),
        (long(b"", b"a"), Encoding.csv, "invalid"),
        (long(b"31,,,\n", b"\xff"), Encoding.csv, "invalid"),
        (long(b"", b",,,\n"), Encoding.csv, "too_many_instances"),
        (long(b"", b",,,\xff\n"), Encoding.csv, "malformed"),
        (long(b"", b"{\n"), Encoding.lines, "malformed"),
    ],
)
def test_a_long_body_that_is_none_takes_no_more_memory_than_itself(body: bytes, encoding: Encoding, code: str) -> None:
    tracemalloc.start()
    with pytest.raises(Refusal) as caught:
        listed(body, encoding)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == code
    assert peak < MAX_BODY_BYTES  # beside the body itself


def test_a_long_body_may_ask_about_one() -> None:
    for space in (b" " * 100_000, b"\n" * 100_000):
        begun = BodyReader(of_users=True).begin(b'{"user_id":"7",' + space + b'"age":3,"age":31}', Encoding.json)
        assert isinstance(begun, ParsedBody)
        assert (begun.alone, begun.registrations[0].age) == (True, 31)
        assert listed(b'{"instances":[]' + space + b"}", Encoding.json) == []
        assert len(listed(b'{"age":null,"instances":[{},{}]' + space + b"}", Encoding.json)) == 2


def test_an_error_in_a_long_body_names_its_place() -> None:
    for space in ("", " " * 100_000):
        body = '{"instances":[{},{"age":"secret31"}]' + space + "}"
        with pytest.raises(Refusal, match=r"at `instances\[1\].age`"):
            listed(body.encode(), Encoding.json)
        for encoding, text in ((Encoding.lines, "{}%s\n{}\n{\n"), (Encoding.csv, "31,,%s,\n,,,\n131,,,\n")):
            with pytest.raises(Refusal, match="line 3: "):
                listed((text % space[:200] + space).encode(), encoding)


def test_an_unknown_field_of_any_length_is_refused_in_few_words() -> None:
    for name in (b" - at `$.a", b"a", b"\\u0020"):
        for body in (b'{"%b":1}' % name, long(b'{"', name, b'":1}')):
            with pytest.raises(Refusal, match=r"does not ask for; it asks for age, gender, country, genres, listens$"):
                listed(body, Encoding.json)


def test_an_unknown_field_is_answered_with_the_fields_that_are_asked_for() -> None:
    reader = BodyReader({"device": "text"}, of_users=True)
    asked = "that this service does not ask for; it asks for user_id, age, gender, country, genres, device, listens"
    for body, encoding, place in (
        (b'{"user_id":"7","secret":1}', Encoding.json, "$"),
        (b'{"instances":[{"user_id":"7"},{"user_id":"7","secret":1}]}', Encoding.json, r" - at `instances\[1\]`$"),
        (b'{"user_id":"7"}\n{"user_id":"7","secret":1}\n', Encoding.lines, "$"),
    ):
        with pytest.raises(Refusal, match=asked + place) as caught:
            reader.read(body, encoding)
        assert "secret" not in str(caught.value)


def test_a_header_without_end_is_not_read_to_its_end() -> None:
    assert encoding_of("text/csv;" + "; " * 8_000) is Encoding.csv
    check_accept("*/*," + "a," * 8_000, Encoding.json)
    with pytest.raises(Refusal, match="406"):
        check_accept("a," * 8_000 + "*/*", Encoding.json)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["age", "genres", "x"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["age", "gender", "country", "genres", "instances", "x"]), JSON))
def test_any_json_is_read_or_refused(told: dict[str, object]) -> None:
    assert status(json.dumps(told).encode(), Encoding.json) in (200, 400, 422)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "age": st.none() | st.integers(0, 120),
            "gender": st.none() | st.text(max_size=200),
            "country": st.none() | st.text(max_size=200),
            "genres": st.lists(st.text(max_size=200), max_size=100),
        },
    )
)
def test_every_valid_registration_is_read(told: dict[str, object]) -> None:
    body = json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if any("\ud800" <= letter <= "\udfff" for letter in json.dumps(told, ensure_ascii=False)):
        return
    read = reader.read(body, Encoding.json).registrations[0]
    assert list(read.genres) == [pick.strip() for pick in told.get("genres", []) if pick.strip()]  # type: ignore[attr-defined]
