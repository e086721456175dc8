"""The networks by name: the contract between a model, the pixels that go in and the features that come out."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """What the jobs must know of a network; a model's ``model.json`` names it."""

    name: str  # of the function of keras.applications that builds it; without its top, its output averaged
    dims: int  # features per image
    low: float  # the range of a feature: what the network cannot leave, or else what no sound model comes near
    high: float
    weights_file: str  # Keras' own, of ImageNet, without the top
    divisor: float = 1.0  # a colour value x of 0 to 255 enters as x / divisor - offset
    offset: float = 0.0
    input_px: int = 224  # width and height; the stored pixels are as wide, so that a larger input gains nothing

    @property
    def limit(self) -> int:
        """The power of two, at least 8, that bounds the magnitude of a feature: the exact sums' fixed point."""
        return max(8, 1 << (math.ceil(max(-self.low, self.high)) - 1).bit_length())


_V2_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
_V3_FILE = "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"
MOBILENET_V2 = Network("MobileNetV2", 1280, 0.0, 6.0, _V2_FILE, divisor=127.5, offset=1.0)  # ends in ReLU6
NETWORKS = {
    network.name: network
    for network in (
        MOBILENET_V2,
        # These scale the colours themselves, and (hard) swish has no upper end.
        Network("MobileNetV3Large", 960, -0.375, 64.0, _V3_FILE),
        Network("EfficientNetV2B0", 1280, -0.279, 64.0, "efficientnetv2-b0_notop.h5"),
    )
}
