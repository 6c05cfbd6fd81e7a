"""One episode of a world: how long it lasts and what its observers see."""

import numpy as np
import pytest
from world_fixtures import BlobWorld

from alam_core.runtime.rollout import DemonstrationRecorder, Outcome, VideoRecorder, rollout


class Pusher:
    """Moves the blob a little further every step; what is executed differs from what it chose."""

    def __init__(self, needs_images_at=()):
        self.needed, self.seeds = needs_images_at, []

    def reset(self, seed):
        self.seeds.append(seed)

    def act(self, observation):
        return np.array([round(observation.stamp, 1), *np.zeros(6)])

    def apply(self, world, action, render):
        return world.step(action + 0.5, render=render)

    def needs_images(self, stamp):
        return round(stamp, 1) in self.needed


def test_an_episode_ends_with_success_or_at_the_step_limit():
    agent = Pusher()
    assert rollout(BlobWorld(), agent, 3) == Outcome(True, 3)
    assert rollout(BlobWorld(), agent, 4) == Outcome(False, 6)
    assert agent.seeds == [3, 4]


@pytest.mark.parametrize(
    ("successes", "expected"),
    [
        ({3, 4, 5}, Outcome(True, 5)),
        ({1, 2, 4, 5, 6}, Outcome(True, 6)),  # a success that is lost counts from the start
        ({1, 2, 4, 5}, Outcome(False, 6)),
        ({1, 2, 6}, Outcome(False, 6)),
    ],
)
def test_success_must_last(successes, expected):
    world = BlobWorld()
    world.success = lambda: world.steps in successes
    assert rollout(world, Pusher(), 0, success_steps=3) == expected


def test_images_are_rendered_where_the_agent_or_an_observer_needs_them():
    blind = DemonstrationRecorder()
    blind.needs_images = False
    for observers, expected in (
        ([], [True, False, True, False]),
        ([blind], [True, False, True, False]),
        ([blind, VideoRecorder()], [True] * 4),
    ):
        world = BlobWorld()
        rollout(world, Pusher(needs_images_at=(0.2,)), 3, observers)
        assert world.renders == expected


def test_a_recording_pairs_each_observation_with_the_action_chosen_there():
    recording = DemonstrationRecorder()
    for seed, steps in ((1, 6), (3, 3)):  # the second episode replaces the first
        rollout(BlobWorld(), Pusher(), seed, [recording])
        assert [o.stamp for o in recording.observations] == pytest.approx(0.1 * np.arange(steps))
        assert [action[0] for action in recording.actions] == pytest.approx(0.1 * np.arange(steps))
        states = [observation.state[0] for observation in recording.observations]
        assert states == pytest.approx([0.0, *(0.5 + 0.1 * np.arange(steps - 1))])


def test_a_video_shows_every_observation_with_its_views_side_by_side():
    video, recording = VideoRecorder(), DemonstrationRecorder()
    rollout(BlobWorld(image_size=32), Pusher(), 3, [video, recording])
    assert video.frames.shape == (4, 32, 64, 3) and video.frames.dtype == np.uint8
    for frame, observation in zip(video.frames, recording.observations, strict=False):
        assert (frame[:, :32] == observation.images["third_person"]).all()
        assert (frame[:, 32:] == observation.images["wrist"]).all()
