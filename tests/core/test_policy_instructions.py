"""An instruction that a policy was not trained on is noticed, and trivial differences are none."""

import dataclasses
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_fixtures import pi0_policy, random_observation, tiny_policy

from alam_core.data.instructions import plain, words
from alam_core.policy.instructions import KnownInstructions
from alam_core.runtime.runner import PolicyRunner

TRAINED = [f"put the {colour} cube on the plate" for colour in ("red", "green", "blue", "yellow")]


def runner_of(instructions, policy=None):
    policy = policy or tiny_policy()
    policy.config = dataclasses.replace(policy.config, instructions=instructions)
    return PolicyRunner(policy)


@pytest.mark.parametrize(
    ("instruction", "known"),
    [
        (TRAINED[0], True),
        ("Put the RED cube on the plate.", True),
        ("  put  the red\tcube on the plate \n", True),
        ("pick up bananas", False),
        ("put the purple cube on the plate", False),
        ("put the red cube, on the plate!", True),
        ("put the red cube", False),
        ("put the red cube on the plate and the green cube on the plate", False),
    ],
)
def test_an_unknown_instruction_is_told_with_those_that_are_known(instruction, known):
    told = runner_of(TRAINED).unknown(instruction)
    assert (told == "") is known
    if not known:
        assert f"not trained on '{instruction}'" in told and all(text in told for text in TRAINED)
        assert "\n" not in told
    assert runner_of([]).unknown(instruction) == ""  # nothing is known


def test_of_many_instructions_the_most_similar_are_told():
    told = runner_of([f"open drawer {i}" for i in range(40)] + TRAINED).unknown("put the red cub")
    assert f"'{TRAINED[0]}'" in told and "39 more" in told


def test_a_known_instruction_is_read_in_the_wording_of_the_training_data():
    """pi0's tokenizer tells upper from lower case."""
    policy = pi0_policy()
    trained, typed = "put the red cube", "Put the  red cube."
    plain, kept_wording = runner_of([], policy), runner_of([trained], pi0_policy())
    size = policy.config.model.image_size
    seen = [random_observation(size=size, instruction=text) for text in (trained, typed)]
    wanted = plain.infer(seen[0]).actions
    assert np.array_equal(kept_wording.infer(seen[1]).actions, wanted)


def test_an_unknown_one_is_noticed_among_very_many():
    many = [f"put object {i} of {i % 7} into box {i % 11}" for i in range(20_000)]
    known = KnownInstructions(many)
    assert known.unknown("Put object 17, of 3, into box 6.") == ""
    told = known.unknown("put object 17 of 3 into bax 6")
    assert f"'{many[17]}'" in told and told.endswith(" and 19995 more")


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ("Pose le bol à côté.", True),
        (unicodedata.normalize("NFD", "pose le bol à côté"), True),  # as copied on a Mac
        ("pose le bol a cote", False),
        ("把红色方块放在盘子上。", True),
        ("把蓝色方块放在盘子上", False),
        ("СТАВЬ КУБИК!", True),
        ("", False),
    ],
)
def test_instructions_of_other_languages_are_compared_too(typed, known):
    trained = ["pose le bol à côté", "把红色方块放在盘子上", "ставь кубик"]
    assert (KnownInstructions(trained).unknown(typed) == "") is known


def test_a_mark_that_changes_a_number_makes_another_instruction():
    known = KnownInstructions(["turn by 5 degrees", "drive -1.5 m"])
    assert known.unknown("turn by -5 degrees") and known.unknown("drive 1.5 m")
    assert not known.unknown("Turn by 5 degrees!") and not known.unknown("drive -1.5 m,")


@given(st.text())
@settings(derandomize=True, deadline=None)
def test_word_ids_are_those_of_the_words_between_all_marks(text):
    """As in checkpoints that were trained before: only comparing instructions looks at marks."""
    assert words(text) == re.findall(r"[^\W_]+", text.lower())
    assert plain(plain(text)) == plain(text)
