"""The input of the model: part of its contract, the same for every engine."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, WebPImagePlugin  # noqa: F401 - else Pillow imports all of its sixty plugins

INPUT_PX = 224
"""Width and height of MobileNetV2's input."""

_FORMATS = ("WEBP", "JPEG", "PNG")
"""The stored format first: Pillow tries all that it knows otherwise, which takes a quarter of decoding."""

_HALF_RANGE, _ONE = np.float32(127.5), np.float32(1.0)


def fill(encoded: bytes, out: npt.NDArray[np.float32]) -> None:
    """Convert an encoded picture to a model input: RGB, bilinear to 224 x 224, x / 127.5 - 1.

    Args:
        encoded: A picture that Pillow reads, such as ``images.pixels``.
        out: (224, 224, 3) float32, C-contiguous; overwritten with values in [-1, 1].
    """
    with Image.open(io.BytesIO(encoded), formats=_FORMATS) as picture:
        resized = picture.convert("RGB").resize((INPUT_PX, INPUT_PX), Image.Resampling.BILINEAR)
    # In place, in the order of `mobilenet_v2.preprocess_input`: equal to the bit, and without a second array.
    np.divide(np.asarray(resized), _HALF_RANGE, out=out, dtype=np.float32)
    np.subtract(out, _ONE, out=out)
