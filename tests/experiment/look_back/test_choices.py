"""The stations of a policy: their table is read as every other, in the encoding that is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstspin.data.formats.written_values import Spelling
from firstspin.experiment.look_back.choices import read_genres
from firstspin.records import InputError


def test_a_table_that_is_not_utf_8_is_read_in_the_encoding_named(tmp_path: Path) -> None:
    path = tmp_path / "stations.csv"
    path.write_bytes("station_id,genre\n1,Schlager für alle\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"stations\.csv row 1 is not text in UTF-8: --encoding names"):
        read_genres(path)
    assert read_genres(path, Spelling(encoding="cp1252")) == {"1": "Schlager für alle"}
