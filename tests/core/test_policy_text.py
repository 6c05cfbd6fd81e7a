"""Tokenizers and sentence encoders."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from policy_fixtures import random_batch, random_observation, tiny_backbone, tiny_policy

from alam_core.errors import UserError
from alam_core.policy.backbone import make_tokenizer
from alam_core.policy.config import ModelConfig
from alam_core.policy.small.config import SmallConfig
from alam_core.policy.small.sentence import SentenceEncoder
from alam_core.policy.small.text import WordTokenizer
from alam_core.runtime.runner import PolicyRunner


def test_ids_are_the_same_on_every_machine():
    assert WordTokenizer(2048, 8)(["Put the red cube!"]).tolist() == [
        [1696, 1925, 1957, 595, 0, 0, 0, 0]
    ]


def test_case_and_punctuation_do_not_matter_but_order_does():
    tokenizer = WordTokenizer()
    assert tokenizer(["Put the RED cube, on the plate."]).equal(
        tokenizer(["put the red cube on the plate"])
    )
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


NAME = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def sentences() -> SentenceEncoder:
    return SentenceEncoder.from_pretrained(NAME, 24)  # set-up installs the package that carries it


def test_instructions_of_the_same_meaning_have_similar_vectors(sentences: SentenceEncoder) -> None:
    put, place, drawer = sentences(
        ["put the red cube on the plate", "place the red block onto the dish", "open the drawer"]
    )
    assert put @ place > put @ drawer + 0.2
    assert put.norm() == pytest.approx(1.0)


def test_a_vector_does_not_depend_on_the_others(sentences: SentenceEncoder) -> None:
    together = SentenceEncoder.from_pretrained(NAME, 24)(
        ["open it", "put the red cube on the plate"]
    )
    assert together[0].equal(sentences(["open   it"])[0])  # nor on white space


def test_sentences_that_do_not_fit_are_refused(sentences: SentenceEncoder) -> None:
    with pytest.raises(UserError, match="empty"):
        sentences([" "])
    with pytest.raises(UserError, match="has 32 tokens, this policy reads 24"):
        sentences(["word " * 30])


def test_a_checkpoint_contains_the_sentence_encoder_and_acts_bit_equal(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"small": dataclasses.replace(tiny_backbone(), text=NAME)}
    policy = tiny_policy(tokenizer=make_tokenizer(ModelConfig(**model)), **model)
    policy(**random_batch(policy))["total"].backward()
    observation = random_observation()
    expected = PolicyRunner(policy).infer(observation)
    other = dataclasses.replace(observation, instruction="open the drawer")
    assert np.abs(PolicyRunner(policy).infer(other).actions - expected.actions).max() > 1e-4
    policy.save_pretrained(tmp_path / "policy")
    # As on a machine that has neither the package nor a network.
    monkeypatch.setattr(SentenceEncoder, "from_pretrained", None)
    assert np.array_equal(
        PolicyRunner.from_pretrained(tmp_path / "policy").infer(observation).actions,
        expected.actions,
    )
    for name, content, message in (
        ("text_encoder.json", "{}", "configuration and weights do not fit"),
        (
            "text_encoder.json",
            '{"model_type": "bert", "hidden_size": 12}',
            "configuration and weights do not fit",
        ),
        ("text_encoder.json", None, "text_encoder.json' is missing"),
        ("tokenizer.json", "nothing", "cannot be read"),
        ("text_encoder.safetensors", None, "text_encoder.safetensors' is missing"),
    ):
        broken = shutil.copytree(tmp_path / "policy", tmp_path / "broken", dirs_exist_ok=True)
        (broken / name).unlink() if content is None else (broken / name).write_text(content)
        with pytest.raises(UserError, match=message):
            PolicyRunner.from_pretrained(broken)


def test_vectors_are_float32_for_any_dtype_in_the_configuration(sentences: SentenceEncoder) -> None:
    half = SentenceEncoder(
        sentences._tokenizer,
        {**sentences._config, "torch_dtype": "float16"},
        sentences._tensors,
        24,
    )
    assert half(["open it"]).dtype == torch.float32 and half(["open it"]).equal(
        sentences(["open it"])
    )


def test_an_encoder_of_another_width_or_an_unknown_name_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match="give --model.small.text_width 384"):
        make_tokenizer(ModelConfig(small=SmallConfig(text=NAME, text_width=128)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no sentence encoder 'nobody/nothing'"):
        SentenceEncoder.from_pretrained("nobody/nothing", 24)
