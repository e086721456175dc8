"""The networks by name: the contract between a model, the pixels that go in and the features that come out."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """What the jobs must know of a network; a model's ``model.json`` names it.

    Attributes:
        name: The function of ``keras.applications`` that builds it; its top is left out and its output averaged.
        dims: Features per image.
        low, high: The range of a feature: what the network cannot leave, or else what no sound model comes near.
        weights_file: Keras' own file of its ImageNet weights, without the top.
        divisor, offset: A colour value x of 0 to 255 enters as ``x / divisor - offset``.
        input_px: Width and height of its input.
    """

    name: str
    dims: int
    low: float
    high: float
    weights_file: str
    divisor: float = 1.0
    offset: float = 0.0
    input_px: int = 224

    @property
    def limit(self) -> int:
        """The power of two, at least 8, that bounds the magnitude of a feature: the exact sums' fixed point."""
        return max(8, 1 << (math.ceil(max(-self.low, self.high)) - 1).bit_length())


MOBILENET_V2 = Network(
    *("MobileNetV2", 1280, 0.0, 6.0),  # ReLU6
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    divisor=127.5,
    offset=1.0,
)
NETWORKS = {
    network.name: network
    for network in (
        MOBILENET_V2,
        # These scale the colours themselves. Hard swish and swish have no upper end.
        Network("MobileNetV3Large", 960, -0.375, 64.0, "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"),
        Network("EfficientNetV2B0", 1280, -0.279, 64.0, "efficientnetv2-b0_notop.h5"),
    )
}
"""Of ``keras.applications``. The stored pixels are 224 px wide, so that a network of a larger input gains nothing."""
