"""Converts action chunks and predicted transitions to messages, and observations from messages."""

from collections.abc import Sequence

import numpy as np
from alam_msgs.msg import ActionChunk, LatentTransition, PredictedLatents
from alam_msgs.msg import Observation as ObservationMessage
from builtin_interfaces.msg import Time

import alam_core.types as core
from alam_common.messages import (
    NANOSECONDS,
    image_to_numpy,
    joint_positions,
    ns_to_stamp,
    stamp_to_ns,
    stamp_to_seconds,
)


def observation_from_message(
    message: ObservationMessage, instruction: str, joints: Sequence[str]
) -> core.Observation:
    """An observation for the policy: the state has the positions of ``joints``; if there are none,
    all positions in the message's order. Raises UserError for an image and ValueError for a joint
    state that cannot be used.
    """
    images = {
        view: image_to_numpy(image, "/alam/observation")
        for view, image in zip(message.views, message.images, strict=True)
    }
    state = joint_positions(message.joint_state, joints)
    return core.Observation(images, state, instruction, stamp_to_seconds(message.header.stamp))


def chunk_to_message(
    chunk: core.ActionChunk, stamp: Time, joint_names: Sequence[str], source: str
) -> ActionChunk:
    """stamp: that of the observation, unrounded. joint_names: names of the actions' columns.
    source: the publisher, see ActionChunk.msg.
    """
    actions = np.asarray(chunk.actions, dtype=np.float64)  # (H, A)
    message = ActionChunk(
        source=source,
        sequence=chunk.sequence,
        joint_names=list(joint_names),
        dt=float(chunk.dt),
        first_step=chunk.first_step,
        steps=len(actions),
    )
    message.header.stamp = stamp
    message.header.frame_id = "base_link"
    message.positions.frombytes(actions.tobytes())
    return message


def latents_to_message(
    chunk: core.ActionChunk, stamp: Time, latent_shape: Sequence[int]
) -> PredictedLatents:
    """The transitions of a chunk. stamp: that of the observation, where the first one begins.
    latent_shape: tokens, and numbers per token.
    """
    message = PredictedLatents(sequence=chunk.sequence)
    message.header.stamp = stamp
    tokens, dim = latent_shape
    step = round((chunk.latent_dt or chunk.dt) * NANOSECONDS)
    for i in range(len(next(iter(chunk.latents.values()), []))):
        begin = stamp_to_ns(stamp) + i * step
        for view, z in chunk.latents.items():
            transition = LatentTransition(
                view=view, tokens=tokens, dim=dim, from_stamp=ns_to_stamp(begin)
            )
            transition.header.stamp = transition.to_stamp = ns_to_stamp(begin + step)
            transition.data.frombytes(np.ascontiguousarray(z[i], dtype=np.float32).tobytes())
            message.transitions.append(transition)
    return message
