"""Instructions as numbers."""

import pytest

from alam_core.errors import UserError
from alam_core.policy.small.text import WordTokenizer


def test_ids_are_the_same_on_every_machine():
    assert WordTokenizer()(["Put the red cube!", "put"]).tolist() == [[1696, 1925, 1957, 595], [1696, 0, 0, 0]]


def test_case_and_punctuation_do_not_matter_but_order_does():
    tokenizer = WordTokenizer()
    assert tokenizer(["Put the RED cube, on the plate."]).equal(tokenizer(["put the red cube on the plate"]))
    assert not tokenizer(["the red cube"]).equal(tokenizer(["red the cube"]))


def test_no_colour_shares_its_id_with_another_word_of_the_tasks():
    text = "put pick up move place the red green blue yellow cube on to and it marked plate"
    ids = WordTokenizer()([text])[0]
    assert len(set(ids[ids > 0].tolist())) == len(text.split())


@pytest.mark.parametrize("instruction", ["", "   ", "?!"])
def test_an_instruction_without_words_is_refused(instruction):
    with pytest.raises(UserError, match="empty"):
        WordTokenizer()([instruction])


def test_an_instruction_too_long_is_refused_with_both_lengths():
    with pytest.raises(UserError, match="has 25 words, this policy reads 24"):
        WordTokenizer()(["word " * 25])
