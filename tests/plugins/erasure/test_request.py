"""Erasing photos from raw bucket and run folders: found everywhere before, and afterwards nowhere but where it must."""

from __future__ import annotations

import gzip
import hashlib
import html
import io
import json
import re
import traceback
import unicodedata
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from fruits_airflow.config.errors import ConfigError, ErasureIncomplete, ErasureRefused
from fruits_airflow.config.settings import Settings
from fruits_airflow.erasure.redaction import ERASED, Redaction, keys_in_listings
from fruits_airflow.erasure.request import (
    ErasureRequest,
    ErasureTargets,
    Resolution,
    read_targets,
    record_targets,
    require_confirmed,
    resolve,
    suppression_key,
)
from fruits_airflow.records.digests import digest_files
from fruits_airflow.report import render
from fruits_airflow.storage.lake import Lake, erasure_key, run_key
from fruits_airflow.storage.object_versions import (
    abort_uploads,
    content_digests,
    image_id_of,
    list_versions,
    remove_versions,
)
from PIL import Image

from tests.plugins import laptop
from tests.plugins.doubles import Double
from tests.plugins.measured import blank_record
from tests.plugins.searching import find_everywhere


def picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(out, "WEBP")
    return out.getvalue()


KEY = "images/Training/Poire Léa/moi & toi.jpg"
OTHER = "images/Training/Apple/1.jpg"
COPY = "images/inbox/the same.jpg"
ID, OTHER_ID = image_id_of(KEY), image_id_of(OTHER)
OLD, NEW = b"the photo as it was", b"the photo as it is!"
RUN = "scheduled__2026-01-01T02:00:00+00:00"
VECTOR = [0.25, 0.5, 0.75]
THUMBNAIL = picture("red")


@dataclass
class Place:
    """A raw bucket with a photo's history, and a lake with the traces of two runs over it."""

    s3: Any
    raw: str
    lake: Lake

    def search(self) -> dict[str, set[str]]:
        needles = {"key": KEY, "id": ID, "old": OLD, "new": NEW, "vector": VECTOR, "thumbnail": THUMBNAIL}
        return find_everywhere(self.s3, [self.raw, self.lake.bucket], needles)


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=1)
    return out.getvalue()


@pytest.fixture
def place(account: Settings) -> Place:
    s3 = laptop.client("s3")
    s3.put_bucket_versioning(Bucket=account.raw_bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=account.raw_bucket, Key=KEY, Body=OLD)
    s3.put_object(Bucket=account.raw_bucket, Key=KEY, Body=NEW)
    s3.delete_object(Bucket=account.raw_bucket, Key=KEY)
    s3.put_object(Bucket=account.raw_bucket, Key=COPY, Body=NEW)
    s3.put_object(Bucket=account.raw_bucket, Key=OTHER, Body=b"somebody else's pic")
    lake = Lake(s3, account.lake_bucket)
    leave_traces(lake, RUN)
    lake.write("logs/j-1/steps/s-1/stderr.gz", gzip.compress(f"cannot decode {KEY}\nand {OTHER}\n".encode()))
    return Place(s3, account.raw_bucket, lake)


def leave_traces(lake: Lake, run_id: str) -> None:
    """What a run leaves of the photo and of another one."""
    ids, vectors = [ID, OTHER_ID], [VECTOR, [1.0, 2.0, 3.0]]
    pictures = [THUMBNAIL, picture("green")]
    sample = {"image_id": ids, "label": ["a", "b"], "pc1": [0.1, 0.2], "pc2": [0.1, 0.2], "thumbnail": pictures}
    lake.write(run_key(run_id, "listing.parquet"), parquet(key=[KEY, OTHER], etag=["e", "f"], size_bytes=[19, 19]))
    lake.write(run_key(run_id, "pca.parquet"), parquet(image_id=ids, label=["a", "b"], pca=vectors))
    lake.write(run_key(run_id, "sample.parquet"), parquet(**sample))
    record = blank_record(run_id, "nightly", "eu-west-1") | {"state": "succeeded"}
    examples = [{"source_key": key, "error_code": "truncated", "detail": ""} for key in (KEY, OTHER)]
    stages = {"load_images": {"seconds": 1, "reject_examples": examples}}
    lake.write_json(run_key(run_id, "run.json"), record)
    lake.write_json(run_key(run_id, "stages/load_images.json"), stages["load_images"])
    named = [[image_id, "Kiwi", 0.9] for image_id in ids]
    lake.write_json(run_key(run_id, "stages/publish.json"), {"classifier": {"top1": {}, "examples": named}})
    lake.write_json(run_key(run_id, "journal/last_failure.json"), {"cause": f"ERROR X: {KEY}: broken"})
    lake.write(run_key(run_id, "model_card.md"), f"shows {KEY}\nshows {OTHER}\n".encode())
    lake.write(run_key(run_id, "report.html"), render(record, stages, pa.table(sample)).encode(), "text/html")


def test_by_key_everything_is_found_then_erased_and_then_found_no_more(place: Place) -> None:
    before = place.search()
    assert all(before.values()), f"the search must find all of it: {before}"
    runs = {name: run_key(RUN, name) for name in ("listing.parquet", "sample.parquet", "report.html", "pca.parquet")}
    texts = {run_key(RUN, name) for name in ("stages/load_images.json", "journal/last_failure.json", "model_card.md")}
    assert before["key"] >= {KEY, runs["listing.parquet"], runs["report.html"], *texts}
    assert "logs/j-1/steps/s-1/stderr.gz" in before["key"]
    assert before["thumbnail"] == {runs["sample.parquet"], runs["report.html"]}
    assert before["vector"] == {runs["pca.parquet"]}
    assert before["new"] == {KEY, COPY}

    erase(place, ErasureRequest(keys=frozenset({KEY})))

    after = place.search()
    assert after.pop("id") == {suppression_key("e1"), erasure_key("e1", "request.json")}
    assert not any(after.values()), after


def erase(place: Place, request: ErasureRequest, erasure_id: str = "e1") -> ErasureTargets:
    """What the tasks do one after the other, without the tables."""
    resolution = resolve(place.s3, place.raw, request, keys_in_listings(place.lake))
    targets = record_targets(place.lake, erasure_id, resolution.targets)
    keys = [v.key for v in list_versions(place.s3, place.raw)] + list(keys_in_listings(place.lake))
    redaction = Redaction(place.lake, targets.image_ids, [k for k in keys if image_id_of(k) in targets.image_ids])
    redaction.erase()
    assert list(redaction.named_objects()) == []
    versions = [v for v in list_versions(place.s3, place.raw) if image_id_of(v.key) in targets.image_ids]
    remove_versions(place.s3, place.raw, versions)
    return targets


@pytest.mark.parametrize(
    "erasure_request",
    [ErasureRequest(image_ids=frozenset({ID})), ErasureRequest(prefix="images/Training/Poire Léa/")],
    ids=["by id", "by prefix"],
)
def test_a_photo_is_found_by_its_id_and_by_its_folder_too(place: Place, erasure_request: ErasureRequest) -> None:
    targets = erase(place, erasure_request)
    assert targets.image_ids == {ID, image_id_of(COPY)}
    assert targets.content_sha256 == {hashlib.sha256(body).hexdigest() for body in (OLD, NEW)}
    assert not place.search()["key"]


def test_scratch_copies_go_whatever_their_names(place: Place) -> None:
    names = ["staging/berries/poire (1).jpg", "staging/album.zip"]
    for name in names:
        place.lake.write(name, NEW)
    redaction = Redaction(place.lake, frozenset({ID}), [KEY])
    assert set(redaction.named_objects()) >= set(names), "no receipt while scratch is there"
    assert redaction.erase().as_json()["scratch"] == 2
    assert place.lake.keys("staging/") == [] == list(redaction.named_objects())


def test_what_belongs_to_others_stays(place: Place) -> None:
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    assert [v.key for v in list_versions(place.s3, place.raw)] == [OTHER]
    table = pq.read_table(io.BytesIO(place.lake.read(run_key(RUN, "pca.parquet")) or b""))
    assert table["image_id"].to_pylist() == [OTHER_ID]
    page = (place.lake.read(run_key(RUN, "report.html")) or b"").decode()
    assert page.count("data:image") == 1
    assert OTHER in page
    assert place.lake.read(run_key(RUN, "model_card.md")) == f"shows {ERASED}\nshows {OTHER}\n".encode()
    log = gzip.decompress(place.lake.read("logs/j-1/steps/s-1/stderr.gz") or b"").decode()
    assert log == f"cannot decode {ERASED}\nand {OTHER}\n"
    metrics = place.lake.read_json(run_key(RUN, "stages/load_images.json")) or {}
    assert [example["source_key"] for example in metrics["reject_examples"]] == [OTHER]
    named = place.lake.read_json(run_key(RUN, "stages/publish.json")) or {}
    assert named["classifier"] == {"top1": {}, "examples": [[OTHER_ID, "Kiwi", 0.9]]}


def test_the_same_photo_under_another_key_goes_with_it(place: Place) -> None:
    assert image_id_of(COPY) in erase(place, ErasureRequest(keys=frozenset({KEY}))).image_ids


def test_a_photo_of_the_same_size_only_is_no_copy(place: Place) -> None:
    assert len(OLD) == len(b"somebody else's pic")
    assert OTHER_ID not in resolve(place.s3, place.raw, ErasureRequest(keys=frozenset({KEY}))).targets.image_ids


def test_twice_is_as_once(place: Place) -> None:
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    first = place.search()
    erase(place, ErasureRequest(keys=frozenset({KEY})), "e2")
    second = place.search()
    assert second.pop("id") == first.pop("id") | {suppression_key("e2"), erasure_key("e2", "request.json")}
    assert second == first


def test_an_attempt_after_the_photo_is_gone_keeps_what_the_first_had_found(place: Place) -> None:
    first = erase(place, ErasureRequest(keys=frozenset({KEY})))
    resolution = resolve(place.s3, place.raw, ErasureRequest(keys=frozenset({KEY})))
    again = record_targets(place.lake, "e1", resolution.targets)
    assert again == first == read_targets(place.lake, "e1")


def test_a_photo_that_is_gone_from_the_bucket_is_known_from_a_listing(place: Place) -> None:
    remove_versions(place.s3, place.raw, [v for v in list_versions(place.s3, place.raw) if v.key == KEY])
    resolution = resolve(
        place.s3, place.raw, ErasureRequest(prefix="images/Training/Poire"), keys_in_listings(place.lake)
    )
    assert resolution.targets == ErasureTargets(frozenset({ID}), frozenset())
    assert resolution.missing == ()


def test_what_shows_the_photo_goes_though_an_attempt_died_in_between(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = run_key(RUN, "slides.pptx")
    place.lake.write(slides, b"with its thumbnail", "application/octet-stream")
    request = ErasureRequest(keys=frozenset({KEY}))
    remove = Lake.remove

    def dies(self: Lake, key: str) -> None:
        if key == slides:
            raise KeyboardInterrupt
        remove(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "remove", dies)
        with pytest.raises(KeyboardInterrupt):
            erase(place, request)
    erase(place, request)
    assert place.lake.read(slides) is None


def test_the_suppression_list_has_a_row_for_each_digest(place: Place) -> None:
    targets = erase(place, ErasureRequest(keys=frozenset({KEY})))
    table = pq.read_table(io.BytesIO(place.lake.read(suppression_key("e1")) or b""))
    assert table.schema.names == ["key_sha256", "content_sha256"]
    assert set(table["key_sha256"].drop_null().to_pylist()) == targets.image_ids
    assert set(table["content_sha256"].drop_null().to_pylist()) == targets.content_sha256


def test_a_report_that_cannot_be_rendered_anew_goes(place: Place) -> None:
    place.lake.remove(run_key(RUN, "run.json"))
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    assert place.lake.read(run_key(RUN, "report.html")) is None


def test_a_report_that_names_the_photo_only_as_a_reject_is_rendered_anew(place: Place) -> None:
    """Without a thumbnail its key is all that shows it, and HTML spells `&` another way."""
    place.lake.remove(run_key(RUN, "sample.parquet"))
    record = place.lake.read_json(run_key(RUN, "run.json")) or {}
    stages = {"load_images": place.lake.read_json(run_key(RUN, "stages/load_images.json")) or {}}
    place.lake.write(run_key(RUN, "report.html"), render(record, stages, None).encode(), "text/html")
    # an attempt that was interrupted here has cleaned what the page is made from
    stages["load_images"] |= {"reject_examples": [{"source_key": OTHER, "error_code": "truncated"}]}
    place.lake.write_json(run_key(RUN, "stages/load_images.json"), stages["load_images"])
    place.lake.remove(run_key(RUN, "journal/last_failure.json"))
    assert html.escape(KEY).encode() in (place.lake.read(run_key(RUN, "report.html")) or b"")

    erase(place, ErasureRequest(keys=frozenset({KEY})))

    page = (place.lake.read(run_key(RUN, "report.html")) or b"").decode()
    assert html.escape(KEY) not in page
    assert OTHER in page


def test_a_presentation_that_showed_the_photo_goes_and_another_stays(place: Place) -> None:
    place.lake.write(run_key(RUN, "presentation.pdf"), b"%PDF")
    place.lake.write(run_key("manual__2026-01-02", "presentation.pdf"), b"%PDF")
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    assert place.lake.read(run_key(RUN, "presentation.pdf")) is None
    assert place.lake.read(run_key("manual__2026-01-02", "presentation.pdf")) is not None


def test_a_log_that_cannot_be_read_goes(place: Place) -> None:
    place.lake.write("logs/j-1/steps/s-1/stdout.gz", b"\x1f\x8bbroken")
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    assert place.lake.read("logs/j-1/steps/s-1/stdout.gz") is None


def test_a_listing_is_the_last_of_its_run_to_lose_the_key(place: Place) -> None:
    written: list[str] = []
    real = place.lake.client.put_object

    def noting(**request: Any) -> Any:
        written.append(request["Key"])
        return real(**request)

    lake = Lake(Double(place.lake.client, put_object=noting), place.lake.bucket)
    Redaction(lake, frozenset({ID}), [KEY]).erase()
    assert written[-1] == run_key(RUN, "listing.parquet")
    assert len(written) == 9


def test_versions_that_s3_keeps_are_no_success(place: Place) -> None:
    def keeping(**_: Any) -> Any:
        return {"Errors": [{"Key": KEY, "Code": "AccessDenied"}]}

    with pytest.raises(ErasureIncomplete, match="kept 1 of 1 versions.*AccessDenied") as caught:
        remove_versions(
            Double(place.s3, delete_objects=keeping), place.raw, list(list_versions(place.s3, place.raw))[:1]
        )
    assert KEY not in str(caught.value)


def test_an_upload_that_never_ended_is_aborted(place: Place) -> None:
    for key in (KEY, OTHER):
        place.s3.create_multipart_upload(Bucket=place.raw, Key=key)
    assert abort_uploads(place.s3, place.raw, frozenset({ID})) == 1
    left = place.s3.list_multipart_uploads(Bucket=place.raw)["Uploads"]
    assert [upload["Key"] for upload in left] == [OTHER]


def test_contents_are_digested_in_every_version(place: Place) -> None:
    digests = content_digests(place.s3, place.raw, list_versions(place.s3, place.raw, KEY))
    assert set(digests.values()) == {hashlib.sha256(body).hexdigest() for body in (OLD, NEW)}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "image_ids, keys, prefix: all are empty"),
        ({"prefix": "/"}, "prefix: '/' would erase everything"),
        ({"prefix": ""}, "prefix: '' would erase everything"),
    ],
)
def test_a_request_for_nothing_or_everything_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ErasureRequest.of(params)


def test_a_folder_that_never_was_is_missing(place: Place) -> None:
    resolution = resolve(place.s3, place.raw, ErasureRequest(prefix="imgaes/"), keys_in_listings(place.lake))
    assert resolution.missing == ("the prefix",)


def test_nothing_of_an_erasure_but_its_request_is_json_with_a_key_in_it(place: Place) -> None:
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    assert json.loads(place.lake.read(erasure_key("e1", "request.json")) or b"").keys() == {
        "image_ids",
        "content_sha256",
    }


HARD = {
    "macOS": "images/Screenshots/Screenshot 2026-01-01 at 9.41.00\u202fAM.png",
    "quotes": 'images/O\'Neil "Bob".jpg',
    "entity": "images/Fish &amp; chips & Zoé.jpg",
    "decomposed": unicodedata.normalize("NFD", "images/Zoë/Crème brûlée.jpg"),
    "per cent": "images/100% ü+1.jpg",
}


@pytest.mark.parametrize("key", HARD.values(), ids=HARD)
def test_a_key_in_every_spelling_goes_from_everything_that_is_written(place: Place, key: str) -> None:
    lake = place.lake
    place.s3.put_object(Bucket=place.raw, Key=key, Body=b"a photo of its own")
    xml = f"<Error><Code>NoSuchKey</Code><Key>{html.escape(key, quote=False)}</Key></Error>"
    decimal = "".join(f"&#{ord(char)};" if ord(char) > 127 else char for char in html.escape(key))
    lines = [repr(key), ascii(key), json.dumps(key), xml, decimal, quote(key), quote(key, safe="")]
    lines += [re.sub("%..", lambda escape: escape[0].lower(), quote(key))]
    lines += [quote_plus(key), repr(key.encode()), *(unicodedata.normalize(f, key) for f in ("NFC", "NFD"))]
    lines = [f"could not fetch {line}: denied, and {OTHER}" for line in lines if OTHER not in key]
    log = "\n".join(lines).encode()
    lake.write("logs/j-2/steps/s-1/stderr.gz", gzip.compress(b"INFO nothing\n" * 100_000 + log))
    lake.write("logs/j-2/steps/s-1/controller", log)
    lake.write_json("state/fruits.json", {"note": lines})
    lake.write_json(erasure_key("e0", "journal/last_failure.json"), {"cause": lines})
    record = (lake.read_json(run_key(RUN, "run.json")) or {}) | {"reason": "\n".join(lines), "state": "failed"}
    lake.write_json(run_key(RUN, "run.json"), record)
    lake.write(run_key(RUN, "report.html"), render(record, {}, None).encode(), "text/html")
    lake.write(run_key(RUN, "extra.parquet"), parquet(label=["theirs", ascii(key)], n=[1, 2]))
    lake.write(run_key(RUN, "core.bin"), b"\0\1" + ascii(key).encode())
    lake.write(run_key(RUN, "lineage.json"), json.dumps([{"inputs": lines}]).encode())
    needles = {"key": key, "composed": unicodedata.normalize("NFC", key)}
    buckets = [place.raw, lake.bucket]
    before = find_everywhere(place.s3, buckets, needles)["key"]
    assert len(before) >= 8, before

    erase(place, ErasureRequest(keys=frozenset({key})))

    after = find_everywhere(place.s3, buckets, needles)
    assert not any(after.values()), after
    text = gzip.decompress(lake.read("logs/j-2/steps/s-1/stderr.gz") or b"").decode()
    assert text.count("INFO nothing\n") == 100_000
    assert text.count(ERASED) == len(lines) == text.count(f": denied, and {OTHER}")
    assert (lake.read_json("state/fruits.json") or {})["note"], "it is JSON still"
    assert json.loads(lake.read(run_key(RUN, "lineage.json")) or b"[]"), "so is this"
    table = pq.read_table(io.BytesIO(lake.read(run_key(RUN, "extra.parquet")) or b""))
    assert table.to_pylist() == [{"label": "theirs", "n": 1}]
    assert lake.read(run_key(RUN, "core.bin")) is None, "what is no text cannot be mended"


@pytest.mark.parametrize("object_key", ["state/x.json", "erasures/e0/note.json", "runs/r/x.parquet", "logs/x.gz"])
def test_what_still_names_a_photo_is_seen(place: Place, object_key: str) -> None:
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    written = {"gz": gzip.compress(ascii(KEY).encode()), "parquet": parquet(label=[ascii(KEY)])}
    place.lake.write(object_key, written.get(object_key.rpartition(".")[2], json.dumps(KEY).encode()))
    assert list(Redaction(place.lake, frozenset({ID}), [KEY]).named_objects()) == [object_key]


def test_what_cannot_be_unpacked_may_still_name_a_photo(place: Place) -> None:
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    place.lake.write("logs/x.gz", gzip.compress(b"x" * 1000)[:-9])
    place.lake.write("runs/x/y.avro", b"Obj\x01" + ascii(KEY).encode())
    assert list(Redaction(place.lake, frozenset({ID}), [KEY]).named_objects()) == ["runs/x/y.avro", "logs/x.gz"]
    Redaction(place.lake, frozenset({ID}), [KEY]).erase()
    assert place.lake.read("logs/x.gz") is place.lake.read("runs/x/y.avro") is None


def test_hostile_files_of_a_run_do_not_stop_an_erasure(place: Place) -> None:
    """A node writes into the folders of runs."""
    place.lake.write(run_key(RUN, "sample.parquet"), b"PAR1broken")
    place.lake.write(run_key(RUN, "run.json"), b"[1]")
    place.lake.write_json(run_key(RUN, "stages/publish.json"), {"reject_examples": ["x", {"source_key": "\ud800"}]})
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    assert place.lake.read(run_key(RUN, "sample.parquet")) is None
    assert place.lake.read(run_key(RUN, "report.html")) is None


def twice(name: str, value: str) -> bytes:
    """A Parquet file with two columns of one name, which Arrow reads and cannot give by its name."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([value]), pa.array([value])], names=[name, name]), out)
    return out.getvalue()


@pytest.mark.parametrize("name", ["pca.parquet", "sample.parquet", "elsewhere/listing.parquet"])
def test_two_columns_of_one_name_do_not_stop_an_erasure(place: Place, name: str) -> None:
    key = run_key("hostile", name)
    place.lake.write(key, twice("label", "x"))
    assert ID in erase(place, ErasureRequest(keys=frozenset({KEY}))).image_ids
    assert place.lake.read(key) is None


NO_UTF8 = pa.array([b"\xff"], pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("listing", "is_removed"),
    [
        (b"no Parquet", True),
        (parquet(key=["images/a.jpg"])[:-9], True),
        (parquet(key=NO_UTF8), True),
        (twice("key", "images/a.jpg"), True),
        (parquet(name=["images/a.jpg"]), False),
        (parquet(key=[7, 8]), False),
    ],
    ids=["no Parquet", "cut", "no UTF-8", "two keys", "no key", "numbers"],
)
def test_a_hostile_listing_is_skipped_and_then_removed(
    place: Place, listing: bytes, is_removed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    key = run_key("hostile", "listing.parquet")
    place.lake.write(key, listing)
    assert set(keys_in_listings(place.lake)) == {KEY, OTHER}
    assert (f"{key} is skipped" in caplog.text) == is_removed
    assert ID in erase(place, ErasureRequest(keys=frozenset({KEY}))).image_ids
    assert (place.lake.read(key) is None) == is_removed


def test_what_an_erasure_rewrites_still_has_the_digest_in_run_json(place: Place) -> None:
    files = ["listing.parquet", "sample.parquet", "pca.parquet", "stages/load_images.json", "report.html"]
    record = place.lake.read_json(run_key(RUN, "run.json")) or {}
    before = digest_files(place.lake, RUN, files)
    place.lake.write_json(run_key(RUN, "run.json"), record | {"digests": before})
    erase(place, ErasureRequest(keys=frozenset({KEY})))
    recorded = (place.lake.read_json(run_key(RUN, "run.json")) or {})["digests"]
    assert recorded == digest_files(place.lake, RUN, files)
    assert all(recorded[name] != before[name] for name in files), "the erasure rewrites each of them"


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
@pytest.mark.parametrize("part", ["keys", "image_ids", "prefix"])
def test_a_key_is_meant_in_either_form_of_unicode(place: Place, typed: str, part: str) -> None:
    uploaded = unicodedata.normalize("NFD" if typed == "NFC" else "NFC", "images/Zoë/crème.jpg")
    place.s3.put_object(Bucket=place.raw, Key=uploaded, Body=b"a photo of its own")
    key = unicodedata.normalize(typed, uploaded)
    requests = {
        "keys": ErasureRequest(keys=frozenset({key})),
        "image_ids": ErasureRequest(image_ids=frozenset({image_id_of(key)})),
        "prefix": ErasureRequest(prefix=key.rpartition("/")[0]),
    }
    resolution = resolve(place.s3, place.raw, requests[part])
    assert resolution.named == {uploaded}
    assert resolution.missing == ()
    assert image_id_of(uploaded) in resolution.targets.image_ids


def test_an_empty_object_has_no_content_and_a_folder_is_no_photo(place: Place) -> None:
    for key in ("images/Training/Poire Léa/", "images/Training/Apple/", "images/inbox/"):
        place.s3.put_object(Bucket=place.raw, Key=key, Body=b"")
    empty = "images/Training/Poire Léa/empty.jpg"
    place.s3.put_object(Bucket=place.raw, Key=empty, Body=b"")
    place.lake.write("logs/j-9/stderr", f"images/Training/Poire Léa/ has 2 objects, {empty} none".encode())
    resolution = resolve(place.s3, place.raw, ErasureRequest(prefix="images/Training/Poire Léa/"))
    assert resolution.keys == {KEY, COPY, empty}
    assert hashlib.sha256(b"").hexdigest() not in resolution.targets.content_sha256
    erase(place, ErasureRequest(prefix="images/Training/Poire Léa/"))
    left = {version.key for version in list_versions(place.s3, place.raw)}
    assert left == {OTHER, "images/Training/Poire Léa/", "images/Training/Apple/", "images/inbox/"}
    log = (place.lake.read("logs/j-9/stderr") or b"").decode()
    assert log == f"images/Training/Poire Léa/ has 2 objects, {ERASED} none"


def test_what_goes_along_by_equal_content_is_named_beforehand(place: Place) -> None:
    resolution = resolve(place.s3, place.raw, ErasureRequest(keys=frozenset({KEY})))
    assert list(resolution.summary()) == [
        "1 photos in 1 folders are named by the request",
        "        1 in images/Training/Poire Léa/",
        "1 photos in 1 folders are equal in content to one of them",
        "        1 in images/inbox/",
    ]


NOTHING = ErasureTargets()
TWO = Resolution(ErasureTargets(frozenset({ID}), frozenset()), frozenset({KEY}), frozenset({COPY}), ())


@pytest.mark.parametrize(
    ("erasure_request", "resolution", "earlier", "refused"),
    [
        (ErasureRequest(expected_photos=2), TWO, NOTHING, None),
        (ErasureRequest(), TWO, NOTHING, "2 photos would be erased, 1 of them because .* trigger .* expected_photos=2"),
        (ErasureRequest(expected_photos=1), TWO, NOTHING, "expected_photos is 1"),
        (ErasureRequest(expected_photos=3), TWO, NOTHING, "expected_photos is 3"),
        (
            ErasureRequest(expected_photos=2),
            replace(TWO, missing=("the prefix",)),
            NOTHING,
            "match nothing .*: the prefix",
        ),
        (ErasureRequest(expected_photos=2, allow_missing=True), replace(TWO, missing=("the prefix",)), NOTHING, None),
        (ErasureRequest(expected_photos=9), TWO, ErasureTargets(frozenset({ID, image_id_of(COPY)}), frozenset()), None),
        (ErasureRequest(expected_photos=2), TWO, ErasureTargets(frozenset({ID}), frozenset()), "trigger a new erasure"),
    ],
    ids=["right", "none", "fewer", "more", "missing", "missing allowed", "confirmed before", "more than before"],
)
def test_only_what_was_confirmed_by_its_number_is_erased(
    erasure_request: ErasureRequest, resolution: Resolution, earlier: ErasureTargets, refused: str | None
) -> None:
    with pytest.raises(ErasureRefused, match=refused) if refused else nullcontext():
        require_confirmed(erasure_request, resolution, earlier, max_photos=2)


def test_more_photos_than_the_settings_allow_are_refused() -> None:
    with pytest.raises(ErasureRefused, match="2 photos would be erased, and max_erased_photos is 1"):
        require_confirmed(ErasureRequest(expected_photos=2), TWO, NOTHING, max_photos=1)


def test_what_matches_nothing_is_named_by_its_image_id(place: Place) -> None:
    request = ErasureRequest(
        image_ids=frozenset({"0" * 64, ID}), keys=frozenset({OTHER, "images/Léo.jpg"}), prefix="imgaes/"
    )
    assert resolve(place.s3, place.raw, request).missing == (
        f"image id {'0' * 64}",
        f"the key with the image id {image_id_of('images/Léo.jpg')}",
        "the prefix",
    )


def test_errors_of_s3_do_not_name_the_key(place: Place) -> None:
    def denied(**_: Any) -> Any:
        message = f'not authorized to perform s3:GetObjectVersion on resource: "arn:aws:s3:::raw/{KEY}"'
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "GetObject")

    def silent(**_: Any) -> Any:
        raise EndpointConnectionError(endpoint_url=f"https://raw.s3.eu-west-1.amazonaws.com/{quote(KEY)}")

    versions = list(list_versions(place.s3, place.raw))
    for failing, kind in ((denied, ClientError), (silent, ConnectionError)):
        with pytest.raises(kind) as caught:
            content_digests(Double(place.s3, get_object=failing), place.raw, versions)
        assert "images" not in "".join(traceback.format_exception(caught.value)).replace(__file__, "")
