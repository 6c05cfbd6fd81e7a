"""Node ``latent_encoder``: encodes the latent transition of each view from one observation to the
next.
"""

import time

import numpy as np
import torch
from alam_msgs.msg import LatentTransition, Observation, Processed
from rclpy.node import Node

from alam_common.diagnostics import ERROR, OK, Diagnostics, Report
from alam_common.main import run_node
from alam_common.messages import NANOSECONDS, image_to_numpy, stamp_to_ns
from alam_common.meters import RateMeter, Recent
from alam_common.parameters import Parameter, declare_parameters
from alam_core.errors import UserError, one_line
from alam_core.latent_action import TransitionEncoder, encode_images

SILENCE = 2.0  # s (steady clock) without an observation after which diagnostics report it
PARAMETERS = {
    "checkpoint": Parameter("", "folder of a transition model; required", path=True),
    "stride": Parameter(
        1, "observations from the first frame of a transition to the second", 1, 1000
    ),
    "max_gap": Parameter(
        0.5, "s; the frames of a transition are at most max_gap * stride apart", 0.0, 1e6
    ),
    "threads": Parameter(1, "CPU threads of the encoder", 1, 1024),
}


class LatentEncoder(Node):
    """See the package's README for topics and parameters."""

    def __init__(self) -> None:
        super().__init__("latent_encoder")
        p = declare_parameters(self, PARAMETERS)
        if not p["checkpoint"]:
            raise UserError(
                "latent_encoder: no checkpoint given; set the parameter 'checkpoint' to the "
                "folder of a transition model"
            )
        self.stride: int = p["stride"]
        self.max_gap = round(p["max_gap"] * NANOSECONDS)
        torch.set_num_threads(p["threads"])
        self.model = TransitionEncoder.from_pretrained(p["checkpoint"])
        self._tokens, self._dim = self.model.latent_shape

        self._from: Observation | None = None  # has the first frame of the next transition
        self._skipped = 0  # number of observations since then
        self._dropped = 0  # observations that could not be used
        self._problem = ""  # of the newest of them, until a transition is encoded
        self._meter, self._rate, self._work = RateMeter(), RateMeter(), Recent()
        self._publisher = self.create_publisher(LatentTransition, "alam/latents", 10)
        self._processed = self.create_publisher(Processed, "alam/processed", 10)
        self.create_subscription(Observation, "alam/observation", self._on_observation, 1)
        self._diagnostics = Diagnostics(self, self._check)

    def _on_observation(self, message: Observation) -> None:
        self._meter.tick()
        try:
            self._follow(message)
        except (UserError, ValueError) as error:  # an unusable observation
            self._dropped += 1
            self._problem = one_line(error)
            self._from = None
        done = Processed(node=self.get_name())
        done.header.stamp = message.header.stamp
        self._processed.publish(done)

    def _follow(self, message: Observation) -> None:
        """Encode the transition that ends with this observation, if there is one."""
        if len(message.images) != len(message.views):
            raise ValueError(
                f"an observation has {len(message.views)} views but {len(message.images)} images"
            )
        gap = (
            0
            if self._from is None
            else stamp_to_ns(message.header.stamp) - stamp_to_ns(self._from.header.stamp)
        )
        if (
            self._from is None
            or not 0 < gap <= self.max_gap * self.stride
            or list(message.views) != list(self._from.views)
        ):
            self._from, self._skipped = message, 0
        else:
            self._skipped += 1
            if self._skipped >= self.stride:
                self._encode(self._from, message)
                self._from, self._skipped = message, 0

    def _encode(self, earlier: Observation, later: Observation) -> None:
        start = time.monotonic()
        source = np.stack(
            [image_to_numpy(image, "/alam/observation") for image in earlier.images]
        )  # (views, H, W, 3)
        target = np.stack([image_to_numpy(image, "/alam/observation") for image in later.images])
        z = encode_images(self.model, source, target)  # (views, tokens * dim)
        for i, view in enumerate(later.views):
            transition = LatentTransition(view=view, tokens=self._tokens, dim=self._dim)
            transition.header.stamp = transition.to_stamp = later.images[i].header.stamp
            transition.header.frame_id = later.images[i].header.frame_id
            transition.from_stamp = earlier.images[i].header.stamp
            transition.data.frombytes(np.ascontiguousarray(z[i], dtype=np.float32).tobytes())
            self._publisher.publish(transition)
        self._problem = ""
        self._rate.tick()
        self._work.add((time.monotonic() - start) * 1e3)

    def _check(self) -> Report:
        values: dict[str, object] = {
            "observation_rate_hz": self._meter.rate(),
            "latent_rate_hz": self._rate.rate(),
            "encoding_ms_p50": self._work.percentile(50),
            "encoding_ms_p99": self._work.percentile(99),
            "dropped": self._dropped,
        }
        if self._meter.silence() > SILENCE:
            return ERROR, f"no observation for {self._meter.silence():.1f} s", values
        if self._problem and self._rate.silence() > SILENCE:
            return ERROR, f"observations cannot be used: {self._problem}", values
        return OK, f"encoding at {self._rate.rate():.1f} Hz", values


def main() -> None:
    run_node(LatentEncoder)


if __name__ == "__main__":
    main()
