from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from fruits.base.batches import rebatch, to_list_column, to_matrix


def batches(*sizes: int) -> list[pa.RecordBatch]:
    starts = np.cumsum([0, *sizes])
    return [
        pa.record_batch({"x": pa.array(range(start, start + size), pa.int64())})
        for start, size in zip(starts, sizes, strict=False)
    ]


@pytest.mark.parametrize("sizes", [(), (0,), (3,), (4,), (1, 1, 1, 1, 1), (9, 0, 2), (17,)])
def test_a_stream_is_cut_into_equal_batches_without_losing_a_row(sizes):
    cut = list(rebatch(batches(*sizes), 4))
    assert all(batch.num_rows == 4 for batch in cut[:-1])
    assert all(0 < batch.num_rows <= 4 for batch in cut)
    assert [x for batch in cut for x in batch.column("x").to_pylist()] == list(range(sum(sizes)))


def test_a_matrix_goes_into_a_list_column_and_back_over_the_same_buffer():
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    column = to_list_column(values)
    assert column.to_pylist() == values.tolist()
    assert to_matrix(column, 3).ctypes.data == column.values.buffers()[1].address
    np.testing.assert_array_equal(to_matrix(column.slice(1, 2), 3), values[1:3])


@pytest.mark.parametrize("rows", [[[1.0, 2.0], [1.0]], [[1.0], [1.0, 2.0, 3.0]], [[1.0, 2.0], None]])
def test_a_row_of_another_length_is_an_error(rows):
    with pytest.raises(ValueError, match="does not have 2"):
        to_matrix(pa.array(rows, pa.list_(pa.float32())), 2)


def test_pyarrow_does_not_import_pandas_before_the_caller_does():
    script = """
import sys
import pyarrow as pa
from fruits.base.batches import block_pandas_import

block_pandas_import()
assert "pandas" not in sys.modules
pa.array([1, None])
assert "pandas" not in sys.modules, "pyarrow checks only once"
numbers = pa.table({"a": [1.5, None]}).to_pandas()["a"]
assert pa.Array.from_pandas(numbers).null_count == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": "spark_jobs"})


def test_workers_load_and_read_files_without_pandas():
    script = """
import sys
import pyarrow as pa
from fruits.images import loading
from fruits.lake import data_files
from fruits.images.fetching import Source

if sys.argv[1] == "load":
    assert list(loading.load_mapper(Source(None, "/", None), "/", 10**6)([])) == []
else:
    share = data_files.FileSlice("/none.parquet", 0, 1, 1)
    read = data_files.Selection(None, "t", ["a"]).map(iter, pa.schema([]), 1, [share]).source.read
    read(0)
assert "pandas" not in sys.modules
pa.array([1])
assert "pandas" not in sys.modules
"""
    for what in ("load", "read"):
        subprocess.run([sys.executable, "-c", script, what], check=True, env={"PYTHONPATH": "spark_jobs"})
