from __future__ import annotations

import io

import numpy as np
from fruits.model.preprocessing import fill
from PIL import Image

from tests.spark_jobs.pictures import encoded, fruit


def test_the_model_is_shown_exactly_what_keras_preprocessing_gives():
    data = encoded(fruit(1, (97, 61)), "PNG")
    resized = Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    expected = np.asarray(resized, np.float32)
    expected = expected / 127.5  # keras.applications.mobilenet_v2.preprocess_input: x /= 127.5; x -= 1.0
    expected = expected - 1.0
    out = np.empty((224, 224, 3), np.float32)
    fill(data, out)
    assert out.tobytes() == expected.tobytes()


def test_black_is_minus_one_and_white_is_one():
    out = np.empty((224, 224, 3), np.float32)
    for colour, value in (("black", -1.0), ("white", 1.0)):
        fill(encoded(Image.new("RGB", (5, 5), colour), "PNG"), out)
        assert (out == value).all()
