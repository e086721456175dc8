"""The other side of erasure: what a person is given of what is kept about a photo."""

from __future__ import annotations

import gzip
import html
import io
import json
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruits_airflow.config.settings import Settings
from fruits_airflow.erasure.stored_content import RangeFile
from fruits_airflow.erasure.subject_access import find_photo
from fruits_airflow.storage.lake import Lake
from fruits_airflow.storage.object_versions import image_id_of, image_ids_of

from ops import __main__ as command_line
from ops import export_image
from tests.plugins import laptop
from tests.plugins.doubles import Double
from tests.plugins.erasure.test_request import (
    ID,
    KEY,
    NEW,
    OLD,
    OTHER,
    OTHER_ID,
    RUN,
    THUMBNAIL,
    VECTOR,
    Place,
    parquet,
    place,
)

__all__ = ["place"]  # the fixture

DATA = "tables/fruits.db/images/data/00000-{}.parquet"


@pytest.fixture
def tables(place: Place) -> Place:
    """The place with a table of two data files: the second carries the first one's row on."""
    rows = {"image_id": [OTHER_ID, ID], "source_key": [OTHER, KEY], "pixels": [b"theirs", b"RIFF\0\0\0\0WEBPmine"]}
    for n in range(2):
        place.lake.write(DATA.format(n), parquet(**rows))
    features = {"image_id": [ID], "features": [VECTOR]}
    place.lake.write("tables/fruits_demo.db/features/data/1.parquet", parquet(**features))
    names = {"image_id": [ID, OTHER_ID], "label": ["Kiwi", "theirs"], "confidence": [0.9, 0.8]}
    place.lake.write("tables/fruits_demo.db/predictions/data/1.parquet", parquet(**names))
    return place


def test_everything_that_is_kept_is_given(tables: Place, tmp_path: Path, account: Settings) -> None:
    export = find_photo(tables.s3, tables.raw, tables.lake.bucket, frozenset({ID}))
    export.write(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "export.json").read_text())
    assert written["keys"] == [KEY]
    assert [version["delete_marker"] for version in written["object_versions"]].count(True) == 1
    photos = {
        (tmp_path / "out" / version["file"]).read_bytes() for version in written["object_versions"] if "file" in version
    }
    assert photos == {OLD, NEW}
    assert written["rows"]["fruits.images"] == [
        {"image_id": ID, "source_key": KEY, "pixels": "see fruits.images-pixels.webp"}
    ], "once, though two data files hold it"
    assert (tmp_path / "out" / "fruits.images-pixels.webp").read_bytes() == b"RIFF\0\0\0\0WEBPmine"
    assert written["rows"]["fruits_demo.features"] == [{"image_id": ID, "features": VECTOR}]
    assert written["rows"]["fruits_demo.predictions"] == [{"image_id": ID, "label": "Kiwi", "confidence": 0.9}]
    assert written["rows"][f"runs/{RUN}/listing.parquet"][0]["key"] == KEY
    assert THUMBNAIL in {path.read_bytes() for path in (tmp_path / "out").glob("*.webp")}
    lines = written["lines_of_logs_and_records"]
    assert lines["logs/j-1/steps/s-1/stderr.gz"] == [f"cannot decode {KEY}"]
    for name in ("stages/load_images.json", "journal/last_failure.json"):
        (line,) = lines[f"runs/{RUN}/{name}"]
        assert json.dumps(KEY)[1:-1] in line, "as JSON spells it"


def test_nothing_of_others_is_given(tables: Place, tmp_path: Path) -> None:
    find_photo(tables.s3, tables.raw, tables.lake.bucket, frozenset({ID})).write(tmp_path / "out")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for theirs in (OTHER, OTHER_ID, "theirs"):
        assert theirs.encode() not in everything


def test_of_an_unknown_photo_there_is_nothing(tables: Place) -> None:
    export = find_photo(tables.s3, tables.raw, tables.lake.bucket, frozenset({image_id_of("images/nobody.jpg")}))
    assert (export.versions, export.rows, export.texts, export.files) == ([], {}, {}, {})


def test_a_key_that_only_a_table_still_knows_is_looked_for_too(account: Settings) -> None:
    lake = Lake(laptop.client("s3"), account.lake_bucket)
    lake.write(DATA.format(0), parquet(image_id=[ID], source_key=[KEY]))
    lake.write("logs/j-1/steps/s-1/stderr", f"cannot decode {KEY}\n".encode())
    export = find_photo(lake.client, account.raw_bucket, account.lake_bucket, frozenset({ID}))
    assert (export.keys, list(export.texts)) == ({KEY}, ["logs/j-1/steps/s-1/stderr"])


def test_an_old_export_is_not_added_to(tables: Place, tmp_path: Path) -> None:
    export = find_photo(tables.s3, tables.raw, tables.lake.bucket, frozenset({ID}))
    export.write(tmp_path / "out")
    with pytest.raises(FileExistsError):
        export.write(tmp_path / "out")


def test_of_a_table_only_the_ids_are_read_where_the_photo_is_not(account: Settings) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"image_id": [OTHER_ID], "pixels": [b"p" * 4_000_000]}), out, compression="none")
    body, read = out.getvalue(), [0]
    laptop.client("s3").put_object(Bucket=account.lake_bucket, Key=DATA.format(0), Body=body)
    real = laptop.client("s3").get_object

    def counting(**request: str) -> object:
        reply = real(**request)
        read[0] += reply["ContentLength"]
        return reply

    client = Double(laptop.client("s3"), get_object=counting)
    find_photo(client, account.raw_bucket, account.lake_bucket, frozenset({ID}))  # type: ignore[arg-type]
    assert 0 < read[0] < 200_000


def test_an_object_reads_like_a_file(account: Settings) -> None:
    body = bytes(range(256))
    laptop.client("s3").put_object(Bucket=account.lake_bucket, Key="x", Body=body)
    file = RangeFile(laptop.client("s3"), account.lake_bucket, "x", len(body))
    assert file.read(10) == body[:10]
    assert file.seek(-6, io.SEEK_END) == 250
    assert (file.read(), file.read(), file.tell()) == (body[250:], b"", 256)


def test_a_key_is_exported_in_either_form_of_unicode(place: Place) -> None:
    uploaded = unicodedata.normalize("NFD", "images/Zoë/crème.jpg")
    place.s3.put_object(Bucket=place.raw, Key=uploaded, Body=b"a photo of its own")
    typed = unicodedata.normalize("NFC", uploaded)
    for image_ids in (image_ids_of(typed), frozenset({image_id_of(typed)})):
        export = find_photo(place.s3, place.raw, place.lake.bucket, image_ids)
        assert (export.keys, len(export.versions)) == ({uploaded}, 1)


@pytest.mark.parametrize("spelled", [repr(KEY), ascii(KEY), quote(KEY), html.escape(KEY)])
def test_a_line_that_spells_the_key_another_way_is_given(place: Place, spelled: str) -> None:
    line = f"could not fetch {spelled}: denied"
    place.lake.write("logs/j-2/stderr.gz", gzip.compress(b"INFO\n" * 500_000 + line.encode() + b"\nand more"))
    export = find_photo(place.s3, place.raw, place.lake.bucket, frozenset({ID}))
    assert export.texts["logs/j-2/stderr.gz"] == [line]


def test_only_its_owner_can_enter_the_folder_and_files_are_named_by_their_content(place: Place, tmp_path: Path) -> None:
    key = "images/page.html"
    place.s3.put_object(Bucket=place.raw, Key=key, Body=b"\xff\xd8\xff a JPEG")
    place.s3.put_object(Bucket=place.raw, Key=key, Body=b"<script>")
    folder = tmp_path / "exports" / "one"
    find_photo(place.s3, place.raw, place.lake.bucket, image_ids_of(key)).write(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.suffix for path in folder.iterdir()} == {".json", ".jpg", ".bin"}


@pytest.mark.parametrize("name", ["a/b", "../../../x", "a\0b", "x" * 300])
def test_no_name_that_a_node_chooses_leads_out_of_the_folder_or_stops_the_export(
    tables: Place, tmp_path: Path, name: str
) -> None:
    tables.lake.write(f"tables/{'t' * 200}.db/{'u' * 100}/1.parquet", parquet(**{"image_id": [ID], name: [b"GIF89a"]}))
    before = set(tmp_path.rglob("*"))
    find_photo(tables.s3, tables.raw, tables.lake.bucket, frozenset({ID})).write(tmp_path / "out")
    (picture,) = (tmp_path / "out").glob("*.gif")
    assert picture.read_bytes() == b"GIF89a"
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before


@pytest.mark.parametrize(
    "hostile",
    [
        {"image_id": [ID], "at": pa.array([2**62], pa.timestamp("us", "UTC"))},
        {"image_id": [ID], "at": pa.array([1], pa.timestamp("us", "No/Where"))},
    ],
    ids=["no such year", "no such zone"],
)
def test_a_file_that_no_job_writes_is_named_and_does_not_stop_the_export(
    tables: Place, hostile: dict[str, Any]
) -> None:
    key = DATA.format("hostile")
    tables.lake.write(key, parquet(**hostile))
    export = find_photo(tables.s3, tables.raw, tables.lake.bucket, frozenset({ID}))
    assert len(export.rows["fruits.images"]) == 1
    assert "cannot be read" in export.texts[key][0]


def test_a_key_that_matches_nothing_is_red_and_says_so(
    place: Place, account: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_image, "load_settings", lambda: account)
    assert command_line.main(["export-image", "--key", "images/nobody.jpg"]) == 1
    err = capsys.readouterr().err
    assert image_id_of("images/nobody.jpg") in err
    assert "Check its spelling" in err
