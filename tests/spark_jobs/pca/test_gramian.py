from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from fruits.base.batches import to_list_column
from fruits.base.errors import FeaturesOutOfRangeError
from fruits.pca import gramian
from fruits.pca.gramian import Gramian, merge_mapper, merge_serialized, sum_mapper
from hypothesis import given, settings
from hypothesis import strategies as st

SCALE_BITS = 14  # of MobileNetV2
RNG = np.random.default_rng(5)


def features(n: int, dims: int = 6) -> np.ndarray:
    return RNG.uniform(0, 6, (n, dims)).astype(np.float32)


def gramian_of(*parts: np.ndarray) -> Gramian:
    total = Gramian(parts[0].shape[1])
    for part in parts:
        total.add(part)
    return total


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_sums_are_the_same_to_the_last_bit_in_any_order_and_partitioning(cuts, random):
    values = features(sum(cuts) + 1)
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = values[order]
    parts = np.split(shuffled, np.cumsum(cuts))
    merged = merge_serialized(gramian_of(part).to_bytes() for part in parts)
    assert merged is not None
    assert merged.to_bytes() == gramian_of(values).to_bytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "change", "remove", "rerun"]), st.integers(0, 29)), max_size=25))
def test_merged_sums_are_those_taken_anew_after_any_mix_of_nights(nights):
    """Images come, change, go and are seen again; each night merges what came and takes out what went."""
    pool = features(60, 4)
    present: dict[int, np.ndarray] = {}
    kept = Gramian(4)
    for what, image in nights:
        before = present.pop(image, None) if what != "add" else None
        after = {"change": pool[image + 30], "rerun": before}.get(what)
        if what == "add" and image not in present:
            after = pool[image]
        if after is not None:
            present[image] = after
            kept.merge(gramian_of(after[None]))
        if before is not None:
            kept.subtract(gramian_of(before[None]))
    anew = Gramian(4)
    for row in present.values():
        anew.add(row[None])
    assert Gramian.from_bytes(kept.to_bytes()).to_bytes() == anew.to_bytes()


def test_taking_out_what_needs_a_borrow_between_the_limbs_is_exact():
    few, many = gramian_of(np.full((3, 2), 8.0, np.float32)), gramian_of(np.full((3000, 2), 8.0, np.float32))
    many.subtract(gramian_of(np.full((2997, 2), 8.0, np.float32)))
    assert many.to_bytes() == few.to_bytes()


def test_more_images_than_there_are_cannot_be_taken_out():
    with pytest.raises(ValueError, match="cannot subtract 3 images from 2"):
        gramian_of(features(2)).subtract(gramian_of(features(3)))


def test_floats_added_plainly_would_not_be_the_same():
    values = features(1000)
    plain = [values[order].T @ values[order] for order in (RNG.permutation(1000) for _ in range(8))]
    assert any((plain[0] != other).any() for other in plain[1:])


def test_covariance_and_mean_are_correctly_rounded():
    values = features(50, 3)
    exact = [[Fraction(int(v)) for v in row] for row in np.rint(values.astype(np.float64) * 2**SCALE_BITS)]
    n = len(exact)
    mean = [sum(row[i] for row in exact) / n for i in range(3)]
    total = gramian_of(values)
    for i in range(3):
        assert total.mean()[i] == float(mean[i] / 2**SCALE_BITS)
        for j in range(3):
            cross = sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in exact) / (n - 1)
            assert total.covariance()[i, j] == float(cross / 4**SCALE_BITS)


def test_blocks_are_folded_before_float64_runs_out_of_digits(monkeypatch):
    monkeypatch.setattr(gramian, "_BLOCK_ROWS", 4)
    monkeypatch.setattr(gramian, "_EXACT_ROWS", 8)
    values = np.full((30, 2), 8.0, np.float32)
    total = Gramian(2)
    for row in values:
        total.add(row[None])
        assert total._pending_rows <= 8
    assert total.covariance().tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert total.mean().tolist() == [8.0, 8.0]


def test_sums_beyond_64_bits_stay_exact():
    part = gramian_of(np.full((4, 1), 8.0, np.float32))
    doubled = Gramian.from_bytes(part.to_bytes())
    for _ in range(40):
        doubled.merge(Gramian.from_bytes(doubled.to_bytes()))
    assert doubled.count == 4 * 2**40
    assert int(doubled._products.to_integers()[0, 0]) == 4 * 2**40 * (8 * 2**SCALE_BITS) ** 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 8.01, -9.0])
def test_a_feature_that_cannot_be_summed_exactly_is_a_named_error(value):
    values = features(3)
    values[1, 2] = value
    with pytest.raises(FeaturesOutOfRangeError, match="the range of its network"):
        Gramian(6).add(values)


def test_bytes_that_are_not_sums_are_refused():
    data = gramian_of(features(3)).to_bytes()
    for wrong in (data[:-1], b"XXXX" + data[4:], data[:6] + b"\xff\xff" + data[8:]):
        with pytest.raises(ValueError, match="not the bytes"):
            Gramian.from_bytes(wrong)


def test_a_larger_range_is_summed_exactly_at_a_coarser_fixed_point():
    values = np.linspace(-0.375, 64, 40, dtype=np.float32).reshape(20, 2)
    total = Gramian(2, 64)
    assert (total.scale_bits, Gramian(2).scale_bits) == (11, SCALE_BITS)
    total.add(values)
    again = Gramian.from_bytes(total.to_bytes())
    assert (again.limit, again.to_bytes()) == (64, total.to_bytes())
    rounded = np.rint(values.astype(np.float64) * 2**11) / 2**11
    np.testing.assert_allclose(again.covariance(), np.cov(rounded.T), rtol=1e-12)
    with pytest.raises(FeaturesOutOfRangeError, match=r"\[-64, 64\]"):
        total.add(np.full((1, 2), 65, np.float32))
    with pytest.raises(ValueError, match="are not those of 2 to 64"):
        total.merge(gramian_of(features(3, 2)))


def test_sums_of_before_there_were_two_networks_are_read():
    """The fixed point is in bytes of the header that were always zero."""
    data = gramian_of(features(3)).to_bytes()
    assert data[4:8] == (6).to_bytes(4, "little")
    assert Gramian.from_bytes(data).limit == 8


def test_no_parts_make_no_sums():
    assert merge_serialized(iter(())) is None


def test_the_mappers_sum_and_merge_partitions():
    values = features(30)
    rows = [pa.record_batch({"features": to_list_column(part)}) for part in np.split(values, [7, 7, 20])]
    partials = [next(iter(sum_mapper(6)(rows[:2]))), next(iter(sum_mapper(6)(rows[2:]))), next(iter(sum_mapper(6)([])))]
    (merged,) = merge_mapper()(partials)
    assert merged.column("sums")[0].as_py() == gramian_of(values).to_bytes()


def test_sums_are_ready_to_be_read_by_two_threads_at_once(monkeypatch):
    features = np.arange(30, dtype=np.float32).reshape(10, 3) / 8
    batch = pa.record_batch([to_list_column(features)], names=["features"])
    total = gramian.sum_batches([batch], 3)
    for changing in ("_multiply", "_fold"):
        monkeypatch.setattr(Gramian, changing, None)
    assert np.allclose(total.covariance(), np.cov(features.T))
    assert total.to_bytes()
