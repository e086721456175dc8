"""The input of the model, the same for every engine."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, WebPImagePlugin  # noqa: F401 - else Pillow imports all of its sixty plugins

from fruits.model.networks import MOBILENET_V2, Network

_FORMATS = ("WEBP", "JPEG", "PNG")
"""The stored format first: Pillow tries all that it knows otherwise, which takes a quarter of decoding."""


def fill(encoded: bytes, out: npt.NDArray[np.float32], network: Network = MOBILENET_V2) -> None:
    """Convert a picture that Pillow reads to a network's input: RGB, bilinear to its size, x / divisor - offset.

    `out`, (input_px, input_px, 3) float32 and C-contiguous, is overwritten.
    """
    size = network.input_px, network.input_px
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as picture:
        resized = picture.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    # In place, in the order of `mobilenet_v2.preprocess_input`: equal to the bit, and without a second array.
    np.divide(np.asarray(resized), np.float32(network.divisor), out=out, dtype=np.float32)
    np.subtract(out, np.float32(network.offset), out=out)
