"""Heads of requests are read in one way or refused; the raw bytes of the same cases are in test_protocol.py."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstspin.service.http.head import joined, origin_form
from firstspin.serving.refusal import Refusal


@pytest.mark.parametrize(
    ("target", "form", "host"),
    [
        (b"/ping", b"/ping", b"x"),
        (b"//ping?a=/b", b"//ping?a=/b", b"x"),
        (b"*", b"*", b"x"),
        (b"http://name/ping?a=1", b"/ping?a=1", b"name"),
        (b"HTTPS://name:443", b"/", b"name:443"),
        (b"http://[::1]?a", b"/?a", b"[::1]"),
    ],
)
def test_a_target_is_a_path_and_its_own_host_comes_first(target: bytes, form: bytes, host: bytes) -> None:
    headers = {b"host": b"x"}
    assert origin_form("1.1", target, headers) == form
    assert headers == {b"host": host}


def test_lists_are_joined_and_what_decides_is_there_once() -> None:
    assert joined(b"accept", b"text/html", b"*/*") == b"text/html, */*"
    assert joined(b"x-trace", b"1", b"2") == b"2"
    for name in (b"host", b"content-type", b"authorization", b"x-api-key"):
        with pytest.raises(Refusal, match=r"^400 malformed_request: there are two headers"):
            joined(name, b"1", b"1")


@given(
    st.sampled_from(["0.9", "1.0", "1.1", "2.0"]),
    st.binary(max_size=30) | st.binary(max_size=20).map(b"http://".__add__),
    st.dictionaries(st.sampled_from([b"host", b"transfer-encoding", b"x"]), st.binary(max_size=12)),
)
def test_any_head_is_a_path_or_refused(version: str, target: bytes, headers: dict[bytes, bytes]) -> None:
    with suppress(Refusal):
        form = origin_form(version, target, headers)
        assert form == b"*" or form.startswith(b"/")
        assert b"host" in headers or version == "1.0"
