"""The preprocessing that the model's contract asks for: the same lines for every peer."""

import io

import numpy as np
from PIL import Image

INPUT_PX = 224


def model_input(data: bytes) -> np.ndarray:
    """Decode a photo and convert it to MobileNetV2's input.

    Returns:
        (224, 224, 3) float32 in [-1, 1]: RGB, bilinear resize, x / 127.5 - 1.
    """
    with Image.open(io.BytesIO(data)) as photo:
        rgb = photo.convert("RGB").resize((INPUT_PX, INPUT_PX), Image.Resampling.BILINEAR)
    return np.asarray(rgb, dtype=np.float32) / np.float32(127.5) - np.float32(1)


def model_inputs(photos: list[bytes]) -> np.ndarray:
    """Several photos as one batch: (n, 224, 224, 3) float32."""
    return np.stack([model_input(data) for data in photos])
