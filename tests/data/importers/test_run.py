"""Archives of made-up rows in their own formats -> tables, with the right answer visible."""

from __future__ import annotations

import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import made_tables
import pyarrow.parquet as pq
import pytest
import real_movielens
from command_line import firstspin

from firstspin import learn
from firstspin.data.importers.run import LAYOUTS, about, import_archive, layout_of
from firstspin.records import InputError


def seconds(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp())  # type: ignore[arg-type]


def packed(folder: Path, name: str, files: dict[str, str], kind: str = "folder", encoding: str = "utf-8") -> Path:
    """The files in a folder of an archive, as a folder, a zip or a tar.gz file."""
    root = folder / name
    root.mkdir(parents=True)
    for file, text in files.items():
        (root / file).write_text(text, encoding=encoding)
    if kind == "folder":
        return root
    path = folder / f"{name}.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(root / file, f"{name}/{file}")
    else:
        with tarfile.open(path, "w:gz") as tar:
            tar.add(root, name)
    return path


def imported(name: str, path: Path, genres: Path | None = None) -> dict[str, list[dict[str, object]]]:
    out = path.parent / "out"
    import_archive(layout_of(name), path, out, genres, lambda _step, _done: None)
    return {
        table: pq.read_table(out / f"{table}.parquet").to_pylist() for table in ("registrations", "listens", "stations")
    }


# ------------------------------------------------------------------------------------------------------------ MovieLens

FIRST = seconds(1998, 1, 1)
RATED = [  # ten first ratings, two of them liked
    *((1, film, 5 if film in (1, 2) else 2, FIRST + film) for film in range(1, 11)),
    (1, 11, 4, FIRST + 3600),  # the first of the listens
    *((1, film, 3, FIRST + 3700) for film in range(12, 21)),  # not liked
    (2, 1, 5, FIRST + 86_400 * 90),  # of two ratings the first half is one
    (2, 3, 4, FIRST + 86_400 * 91),
]
TABLES = {
    "registrations": [
        {"user_id": "1", "registered_at": datetime(1998, 1, 1, 0, 0, 1), "genres": ["Comedy", "Horror"]},
        {"user_id": "2", "registered_at": datetime(1998, 4, 1), "genres": ["Horror"]},
    ],
    "listens": [
        {"user_id": "1", "started_at": datetime(1998, 1, 31, 1), "station_id": "11", "seconds": 5400},
        {"user_id": "2", "started_at": datetime(1998, 5, 2), "station_id": "3", "seconds": 5400},
    ],
}
"""Of films 1 (Horror, Comedy), 2 to 20 (Comedy): Horror is rarer."""


def expected(**more: list[dict[str, object]]) -> dict[str, list[dict[str, object]]]:
    registrations = [
        {**{k: v for k, v in row.items() if k != "genres"}, **extra, "genres": row["genres"]}
        for row, extra in zip(TABLES["registrations"], more["people"], strict=True)
    ]
    return {"registrations": registrations, "listens": TABLES["listens"]}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_movielens_100k(tmp_path: Path, kind: str) -> None:
    def film(number: int, *genres: int) -> str:
        flags = "|".join("1" if at in genres else "0" for at in range(19))
        return f"{number}|Caf\u00e9 {number} (1995)|01-Jan-1995||http://x|{flags}\n"

    files = {
        "u.data": "".join(f"{user}\t{item}\t{rating}\t{at}\n" for user, item, rating, at in reversed(RATED)),
        "u.item": film(1, 5, 11) + "".join(film(n, 5) for n in range(2, 21)) + film(21, 0),
        "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n",
    }
    tables = imported("movielens-100k", packed(tmp_path, "ml-100k", files, kind, "iso-8859-1"))
    stations = tables.pop("stations")
    assert tables == expected(
        people=[
            {"age": 24, "gender": "M", "occupation": "technician"},
            {"age": 53, "gender": "F", "occupation": "other"},
        ]
    )
    assert {row["station_id"]: row["genre"] for row in stations} == {"1": "Horror"} | {
        str(n): "Comedy" for n in range(2, 21)
    }
    assert stations[0]["name"] == "Caf\u00e9 1 (1995)"


def test_movielens_1m(tmp_path: Path) -> None:
    films = ["1::Caf\u00e9 (1995)::Comedy|Horror", *(f"{n}::Film {n}: Part 2 (1995)::Comedy" for n in range(2, 21))]
    files = {
        "ratings.dat": "".join("::".join(map(str, row)) + "\n" for row in RATED),
        "movies.dat": "\n".join(films) + "\n",
        "users.dat": "1::M::25::12::55117\n2::F::1::0::48067\n",
    }
    tables = imported("movielens-1m", packed(tmp_path, "ml-1m", files, "zip", "iso-8859-1"))
    assert tables.pop("stations")[0]["name"] == "Caf\u00e9 (1995)"
    assert tables == expected(
        people=[
            {"age": 25, "gender": "M", "occupation": "programmer"},
            {"age": None, "gender": "F", "occupation": "other"},  # under 18: no age
        ]
    )


def test_movielens_25m(tmp_path: Path) -> None:
    films = [
        '1,"Alien, the (1995)",Comedy|Horror',
        *(f"{n},Film (1995),Comedy" for n in range(2, 21)),
        "21,None,(no genres listed)",
    ]
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n" + "".join(",".join(map(str, row)) + "\n" for row in RATED),
        "movies.csv": "movieId,title,genres\n" + "\n".join(films) + "\n",
        "tags.csv": "userId,movieId,tag,timestamp\n",
    }
    tables = imported("movielens-25m", packed(tmp_path, "ml-25m", files, "zip"))
    stations = tables.pop("stations")
    assert (len(stations), stations[0]["name"]) == (20, "Alien, the (1995)")
    assert tables == expected(people=[{}, {}])


# -------------------------------------------------------------------------------------------------------------- Last.fm

PLAYS = [
    ("user_1", "2006-08-20T10:00:00Z", "Air"),
    ("user_1", "2006-08-21T10:00:00Z", "Air"),
    ("user_1", "2006-08-22T10:00:00Z", "Slayer"),
    ("user_1", "2006-09-20T10:00:00Z", "Slayer"),  # after the first thirty days
    ("user_2", "2006-09-01T10:00:00Z", 'The "Quoted'),
]
LASTFM_1K = {
    "userid-profile.tsv": "#id\tgender\tage\tcountry\tregistered\n"
    "user_1\tm\t31\tJapan\tAug 13, 2006\nuser_2\tf\t\t\t\nuser_3\t\t\tPeru\tFeb 1, 2006\n",
    "userid-timestamp-artid-artname-traid-traname.tsv": "".join(
        f"{user}\t{at}\tid\t{artist}\t\tSong\n" for user, at, artist in PLAYS
    )
    + "user_1\tnot\tenough\n",
}


def test_lastfm_1k_with_the_genres_of_a_file(tmp_path: Path) -> None:
    path = packed(tmp_path, "lastfm-dataset-1K", LASTFM_1K, "tar.gz")
    genres = made_tables.write(tmp_path, "genres", ("name", "genre"), [("air", "Electronic"), ("Slayer", "Metal")])
    tables = imported("lastfm-1k", path, genres)
    assert tables["registrations"] == [
        {
            "user_id": "user_1",
            "registered_at": datetime(2006, 8, 13),
            "age": 31,
            "gender": "m",
            "country": "Japan",
            "genres": ["Electronic", "Metal"],
        },
        {
            "user_id": "user_2",
            "registered_at": datetime(2006, 9, 1),  # the day of the first play
            "age": None,
            "gender": "f",
            "country": None,
            "genres": [],
        },
        {
            "user_id": "user_3",
            "registered_at": datetime(2006, 2, 1),
            "age": None,
            "gender": None,
            "country": "Peru",
            "genres": [],
        },
    ]
    assert [(row["user_id"], row["station_id"], row["seconds"]) for row in tables["listens"]] == [
        ("user_1", "Air", 210),
        ("user_1", "Air", 210),
        ("user_1", "Slayer", 210),
        ("user_1", "Slayer", 210),
    ]
    assert tables["listens"][0]["started_at"] == datetime(2006, 8, 20, 10)
    assert [(row["name"], row["genre"]) for row in tables["stations"]] == [("Air", "Electronic"), ("Slayer", "Metal")]


def test_lastfm_1k_without_genres_takes_artists_for_genres(tmp_path: Path) -> None:
    tables = imported("lastfm-1k", packed(tmp_path, "lastfm-dataset-1K", LASTFM_1K))
    assert [row["genre"] for row in tables["stations"]] == ["Air", "Slayer", 'The "Quoted']
    assert tables["registrations"][0]["genres"] == ["Air", "Slayer"]


def test_lastfm_2k(tmp_path: Path) -> None:
    at = seconds(2009, 4, 1) * 1000
    files = {
        "artists.dat": "id\tname\turl\tpictureURL\n1\tAir\tu\tp\n2\tSlayer\tu\tp\n3\tNobody\tu\tp\n4\tMoby\tu\tp\n",
        "tags.dat": "tagID\ttagValue\n1\telectronica\n2\tmetal\n3\tseen live\n4\tcaf\u00e9\n",
        "user_artists.dat": "userID\tartistID\tweight\n7\t1\t100\n7\t2\t10\n7\t3\t5\n7\t4\t2\n8\t1\t3\n9\t1\t1\n",
        "user_taggedartists-timestamps.dat": "userID\tartistID\ttagID\ttimestamp\n"
        f"7\t1\t1\t{at}\n7\t1\t3\t{at + 1000}\n8\t2\t2\t{at}\n8\t4\t1\t{at}\n8\t1\t4\t-428720400000\n",
    }
    tables = imported("lastfm-2k", packed(tmp_path, "hetrec2011-lastfm-2k", files, "zip", "iso-8859-1"))
    april, later = datetime(2009, 4, 1), datetime(2009, 5, 30)
    assert tables["registrations"] == [
        {"user_id": "7", "registered_at": april, "genres": ["Electronic"]},
        {"user_id": "8", "registered_at": april, "genres": ["Electronic", "Metal"]},
    ]
    assert tables["listens"] == [  # not Air of 7 nor of 8, which they tagged; not Nobody, who has no genre
        {"user_id": "7", "started_at": later, "station_id": "2", "seconds": 2100},
        {"user_id": "7", "started_at": later, "station_id": "4", "seconds": 420},
    ]
    assert {row["name"]: row["genre"] for row in tables["stations"]} == {
        "Air": "Electronic",
        "Slayer": "Metal",
        "Moby": "Electronic",
    }


# --------------------------------------------------------------------------------------------------------------- Deezer


def test_deezer_holds_one_genre_back(tmp_path: Path) -> None:
    files = {
        "HR_genres.json": '{"0": ["Pop", "Rock", "Jazz"], "1": ["Pop"]}',
        "HU_genres.json": '{"0": ["Rap/Hip Hop", "Rock"]}',
        "HR_edges.csv": "node_1,node_2\n0,1\n",
    }
    tables = imported("deezer", packed(tmp_path, "deezer_clean_data", files, "tar.gz"))
    genre = {row["station_id"]: row["genre"] for row in tables["stations"]}
    held = {row["user_id"]: genre[row["station_id"]] for row in tables["listens"]}
    picks = {row["user_id"]: row["genres"] for row in tables["registrations"]}
    assert {user: {held[user], *picks[user]} for user in held} == {  # type: ignore[misc]
        "HR0": {"Pop", "Rock", "Jazz"},
        "HU0": {"Rap/Hip Hop", "Rock"},
    }
    assert [len(picks["HR0"]), len(picks["HU0"])] == [2, 1]  # type: ignore[arg-type]
    assert [row["country"] for row in sorted(tables["registrations"], key=lambda row: str(row["user_id"]))] == [
        "HR",
        "HU",
    ]


# ------------------------------------------------------------------------------------------------- any of them, refused


def test_a_folder_of_another_archive_names_the_one_it_is(tmp_path: Path) -> None:
    path = packed(tmp_path, "lastfm-dataset-1K", LASTFM_1K)
    with pytest.raises(InputError, match=r"has no u\.data, which movielens-100k has; its files are those of lastfm-1k"):
        imported("movielens-100k", path)
    assert not (tmp_path / "out").exists()


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no archive is called 'movielens-100'; did you mean movielens-100k\?"):
        layout_of("movielens-100")


def test_an_archive_without_listens_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = packed(tmp_path, "deezer", {"HR_genres.json": '{"0": ["Pop"]}'})
    with pytest.raises(InputError, match="the archive gives no registrations"):
        imported("deezer", path)
    assert [one.name for one in tmp_path.iterdir()] == ["deezer"]


@pytest.mark.parametrize("text", ["[1]", '{"0": [["Pop"]]}', '{"0": "Pop"}', "{"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = packed(tmp_path, "deezer", {"HR_genres.json": text})
    with pytest.raises(InputError, match=r"HR_genres\.json is not JSON that maps users to lists of genres"):
        imported("deezer", path)


def test_every_archive_has_a_licence_a_citation_and_what_is_derived() -> None:
    page = (Path(__file__).parent.parent.parent.parent / "docs" / "archives.md").read_text(encoding="utf-8")
    for layout in LAYOUTS.values():
        described = (layout.home, layout.licence, layout.citation, *layout.derived)
        assert all(part in about(layout) for part in described)
        assert all(part in " ".join(page.split()) for part in (f"## {layout.name}", *described))


def test_the_command_prints_licence_and_what_is_derived_and_the_tables_can_be_used(tmp_path: Path) -> None:
    lists = ", ".join(f'"{n}": ["Pop", "Rock", "Jazz", "Folk"]' for n in range(60))
    path = packed(tmp_path, "deezer", {"HR_genres.json": f"{{{lists}}}"}, "zip")
    out = tmp_path / "tables"
    done = firstspin("import", "deezer", path, "--out", out)
    assert done.returncode == 0, done.stderr
    for part in ("Licence:", "Citation:", "Derived", "60 registrations, 60 listens", f"--data {out}"):
        assert part in done.stdout
    assert (out / "README.md").read_text() in done.stdout
    again = firstspin("import", "deezer", path, "--out", out)
    assert again.returncode == 1
    assert "Traceback" not in again.stderr
    census, _ = learn.label(out, tmp_path / "labels.parquet")
    assert census.labelled > 50
    listed = firstspin("import", "--list").stdout
    assert all(name in listed for name in LAYOUTS)
    assert firstspin("import", "deezer").returncode == 2


# ---------------------------------------------------------------------------------------------------- the real 100,000


def test_the_real_movielens_100k(tmp_path: Path) -> None:
    tables = imported("movielens-100k", packed(tmp_path, "ml-100k", real_movielens.files(), "zip", "iso-8859-1"))
    assert [len(tables[name]) for name in ("registrations", "listens", "stations")] == [943, 49_704, 1680]
    census, _ = learn.label(tmp_path / "out", tmp_path / "labels.parquet")
    assert (census.registered, census.labelled) == (943, 764)
