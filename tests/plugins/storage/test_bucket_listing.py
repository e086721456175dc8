"""Listing a bucket once: in order, side by side, a million keys in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fruits_airflow.config.errors import ListingIncomplete
from fruits_airflow.config.settings import Settings
from fruits_airflow.storage import bucket_listing
from fruits_airflow.storage.bucket_listing import list_objects

from tests.plugins import laptop
from tests.plugins.million_keys import ScriptedS3

ROOT = Path(__file__).resolve().parents[3]


def keys(s3: ScriptedS3) -> list[str]:
    return [item.key for item in list_objects(s3, "raw", s3.prefix)]  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2500), (3, 2, 1100), (1, 40, 30), (40, 3, 7), (2, 2, 1000)])
def test_every_key_comes_once_and_in_order_whatever_the_folders_are(shape: tuple[int, int, int]) -> None:
    folders, labels, each = shape
    listed = keys(ScriptedS3("raw/", folders, labels, each))
    assert len(listed) == folders * labels * each
    assert listed == sorted(set(listed))


def test_folders_are_listed_side_by_side() -> None:
    s3 = ScriptedS3("raw/", 20, 2, 1500)
    s3.delay_s = 0.02
    keys(s3)
    assert 4 < s3.most_at_once <= bucket_listing.WORKERS


def test_no_page_of_keys_is_asked_for_twice() -> None:
    s3 = ScriptedS3("raw/", 4, 3, 2500)
    keys(s3)
    pages = [tuple(sorted(page.items())) for page in s3.pages if "Delimiter" not in page]
    assert len(pages) == len(set(pages)) == 4 * 3 * 3
    assert len(s3.pages) - len(pages) <= 1 + 4 + 12, "one look into each folder that was opened"


def test_an_error_of_one_folder_is_the_callers() -> None:
    class Denied(ScriptedS3):
        def list_objects_v2(self, **request: str) -> dict[str, object]:
            if request["Prefix"] == "raw/0001/":
                raise PermissionError("AccessDenied")
            return super().list_objects_v2(**request)

    with pytest.raises(PermissionError):
        keys(Denied("raw/", 3, 2, 10))


def truncated_without_a_token(page: dict[str, Any]) -> None:
    page["IsTruncated"] = True
    page.pop("NextContinuationToken", None)


def ended_with_a_token(page: dict[str, Any]) -> None:
    page["IsTruncated"], page["NextContinuationToken"] = False, "more"


def without_its_end(page: dict[str, Any]) -> None:
    page["KeyCount"] = len(page.get("Contents", [])) + len(page.get("CommonPrefixes", [])) + 1


def without_a_word(page: dict[str, Any]) -> None:
    del page["IsTruncated"]


@pytest.mark.parametrize("mangle", [truncated_without_a_token, ended_with_a_token, without_its_end, without_a_word])
@pytest.mark.parametrize("prefix", ["raw/", "raw/0001/"])
def test_a_page_that_ends_early_is_an_error_and_no_absence(
    mangle: Callable[[dict[str, Any]], None], prefix: str
) -> None:
    class Mangled(ScriptedS3):
        def list_objects_v2(self, **request: str) -> dict[str, Any]:
            page = super().list_objects_v2(**request)
            if request["Prefix"] == prefix:
                mangle(page)
            return page

    with pytest.raises(ListingIncomplete, match=f"s3://raw/{prefix}"):
        keys(Mangled("raw/", 3, 2, 10))


def test_every_page_is_asked_for_with_the_account_that_must_own_the_bucket() -> None:
    s3 = ScriptedS3("raw/", 3, 2, 2500)
    assert list(list_objects(s3, "raw", "raw/", "123456789012"))  # type: ignore[arg-type]
    assert {page["ExpectedBucketOwner"] for page in s3.pages} == {"123456789012"}


@pytest.mark.server
def test_keys_that_sort_oddly_come_in_the_order_of_their_bytes(account: Settings) -> None:
    names = ["a-b.jpg", "a/x.jpg", "a.jpg", "a//y.jpg", "a/x.jpg/", "é/1.jpg", "😀/1.jpg", "Z.jpg", "a b/1.jpg"]
    names += ["%2F/1.jpg", "a+b/=.jpg", "deep/er/and/deep/er/1.jpg", "_x/.y.jpg"]
    laptop.put_photos(account.raw_bucket, [f"odd/{name}" for name in names])
    listed = [item.key for item in list_objects(laptop.client("s3"), account.raw_bucket, "odd/")]
    assert listed == sorted((f"odd/{name}" for name in names), key=str.encode)


def test_a_million_keys_pass_in_bounded_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.plugins.million_keys", "1000000"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    listed = json.loads(done.stdout)
    assert listed["rows"] == listed["unchanged"] == 1_000_000
    assert listed["grown_mb"] < 180, "held as Python objects, a million keys, ETags and sizes are 250 MB more"
    assert listed["pages"] < 1_100
