"""The pi0 backbone: its outputs, its attention, published weights and instructions."""

import json
import subprocess
import sys

import pi0_fixtures as published
import pytest
import torch
from safetensors.torch import save_file

from alam_core.errors import UserError
from alam_core.policy.pi0.backbone import Pi0Backbone
from alam_core.policy.pi0.config import Pi0Config
from alam_core.policy.pi0.text import Pi0Tokenizer
from alam_core.policy.pi0.weights import load_pi0

VIEWS = ("third_person", "wrist")
STEPS = 4
CAUSAL = torch.ones(STEPS, STEPS, dtype=torch.bool).tril()
FULL = torch.ones_like(CAUSAL)


def make(views=VIEWS, state_dim=published.STATE, width=published.ACTION, **changes):
    """A tiny backbone with its action heads; no parameter is 0."""
    torch.manual_seed(0)
    backbone = Pi0Backbone(
        Pi0Config(**(published.SIZE | changes)), views, published.IMAGE, state_dim
    )
    heads = backbone.input_head(width), backbone.output_head(width)
    with torch.no_grad():
        for module in (backbone, *heads):
            for parameter in module.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return backbone, *heads


def observe(batch=3, seed=1):
    """Images, state, words: the second row has padding words, the third row's wrist camera is
    missing.
    """
    generator = torch.Generator().manual_seed(seed)
    images = {
        view: torch.rand(batch, 3, published.IMAGE, published.IMAGE, generator=generator) * 2 - 1
        for view in VIEWS
    }
    words = torch.randint(1, published.VOCABULARY, (batch, published.WORDS), generator=generator)
    words[1:2, 3:] = 0
    images["wrist"][2:] = -1.0
    return images, torch.randn(batch, published.STATE, generator=generator), words


def write(folder, weights):
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("mask", [FULL, CAUSAL])
def test_published_weights_compute_what_the_published_model_computes(tmp_path, mask):
    """The cached prefix against one pass over everything: padding, a missing camera, both kinds of
    mask.
    """
    backbone, enter, leave = make()
    weights = published.random_weights()
    load_pi0(write(tmp_path, weights), backbone, enter, leave)
    images, state, words = observe()
    actions, tau = torch.randn(3, STEPS, published.ACTION), torch.tensor([0.9, 0.3, 0.001])
    there = torch.tensor([[True, True], [True, True], [True, False]])
    expected = published.velocity(
        weights,
        torch.stack([images[view] for view in VIEWS]),
        there,
        words,
        state,
        actions,
        tau,
        mask,
    )
    with torch.inference_mode():
        context = backbone.encode(images, state, words)
        for _ in range(2):  # the context is reused
            tokens = enter(actions, tau.view(3, 1, 1))
            found = leave(backbone.denoise(tokens, tau.view(3, 1, 1), context, mask))
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_missing_camera_equals_a_policy_without_that_camera():
    backbone, *_ = make()
    alone, *_ = make(views=VIEWS[:1])
    images, state, words = observe()
    images["wrist"][:] = -1.0
    tokens, tau = torch.randn(3, STEPS, published.EXPERT), torch.ones(3, 1, 1)
    with torch.inference_mode():
        both = backbone.denoise(tokens, tau, backbone.encode(images, state, words), CAUSAL)
        one = alone.denoise(tokens, tau, alone.encode(images, state, words), CAUSAL)
    assert torch.allclose(both, one, atol=1e-5)


def test_padding_words_change_nothing():
    backbone, *_ = make()
    images, state, words = observe()
    words[:, 3:] = 0
    tokens, tau = torch.randn(3, STEPS, published.EXPERT), torch.ones(3, 1, 1)
    with torch.inference_mode():
        padded = backbone.denoise(tokens, tau, backbone.encode(images, state, words), CAUSAL)
        short = backbone.denoise(tokens, tau, backbone.encode(images, state, words[:, :3]), CAUSAL)
        backbone.words.weight[0] += 5.0
        other = backbone.denoise(tokens, tau, backbone.encode(images, state, words), CAUSAL)
    assert torch.allclose(padded, short, atol=1e-5)
    assert torch.equal(padded, other)


def test_perturbing_a_token_moves_exactly_the_outputs_that_may_see_it():
    backbone, *_ = make(kv_heads=2)
    backbone.double()
    draws, mask = 2, torch.rand(STEPS, STEPS, generator=torch.Generator().manual_seed(3)) < 0.3
    mask |= torch.eye(STEPS, dtype=torch.bool)
    for _ in range(STEPS):  # what may be seen, also through other tokens
        mask = (mask.float() @ mask.float()) > 0
    images, state, words = observe(1)
    tokens, tau = (
        torch.randn(draws, STEPS, published.EXPERT, dtype=torch.double),
        torch.full((draws, 1, 1), 0.3),
    )
    with torch.inference_mode():
        context = backbone.encode(images, state.double(), words)
        before = backbone.denoise(tokens, tau, context, mask)
        for column in range(STEPS):
            perturbed = tokens.clone()
            perturbed[1, column] += torch.randn(published.EXPERT, dtype=torch.double)
            change = (backbone.denoise(perturbed, tau, context, mask) - before).abs().amax(-1)
            assert (change[0] == 0).all(), "a draw sees another one"
            assert ((change[1] > 1e-9) == mask[:, column]).all()
            assert (change[1][~mask[:, column]] == 0).all()


def test_the_state_sees_the_prefix_and_the_prefix_does_not_see_the_state():
    backbone, *_ = make()
    images, state, words = observe()
    with torch.inference_mode():
        before = backbone.encode(images, state, words)
        moved = backbone.encode(images, state + 1.0, words)
        reworded = backbone.encode(images, state, words.flip(0))
    for (key, value), (key2, value2), (_, value3) in zip(
        before.keys, moved.keys, reworded.keys, strict=True
    ):
        assert torch.equal(key[:, :, :-1], key2[:, :, :-1]) and torch.equal(
            value[:, :, :-1], value2[:, :, :-1]
        )
        assert not torch.allclose(value[:, :, -1], value2[:, :, -1])
        assert not torch.allclose(value[:1, :, :-1], value3[:1, :, :-1])
    assert not torch.allclose(before.keys[-1][1][:1, :, -1], reworded.keys[-1][1][:1, :, -1])


def test_draws_share_one_context():
    backbone, *_ = make()
    context = backbone.encode(*observe())
    tokens, tau = torch.randn(6, STEPS, published.EXPERT), torch.ones(6, 1, 1)
    together = backbone.denoise(tokens, tau, context, CAUSAL).view(3, 2, STEPS, -1)
    for draw in range(2):
        alone = backbone.denoise(tokens.view(3, 2, STEPS, -1)[:, draw], tau[:3], context, CAUSAL)
        assert torch.allclose(together[:, draw], alone, atol=1e-5)


def test_every_parameter_gets_a_gradient():
    modules = make()
    backbone, enter, leave = modules
    tau = torch.rand(3, STEPS, 1)  # of each step
    tokens = enter(torch.randn(3, STEPS, published.ACTION), tau)
    leave(
        backbone.denoise(tokens, tau, backbone.encode(*observe()), CAUSAL)
    ).square().sum().backward()
    for module in modules:
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_frozen_parameters_leave_the_expert_trainable():
    backbone, enter, leave = make()
    for part in (backbone.vision, backbone.projector, backbone.words, backbone.prefix):
        part.requires_grad_(False)
    context = backbone.encode(*observe())
    leave(
        backbone.denoise(
            enter(torch.randn(3, STEPS, 9), torch.ones(3, 1, 1)),
            torch.ones(3, 1, 1),
            context,
            CAUSAL,
        )
    ).sum().backward()
    assert backbone.vision.embeddings.patch_embedding.weight.grad is None
    assert all(parameter.grad is not None for parameter in backbone.expert.parameters())


@pytest.mark.parametrize("autocast", [True, False])
def test_bfloat16_is_close_to_float32(autocast):
    modules = make()
    images, state, words = observe()
    actions, tau = torch.randn(3, STEPS, published.ACTION), torch.full((3, 1, 1), 0.5)

    def run():
        backbone, enter, leave = modules
        return leave(
            backbone.denoise(
                enter(actions, tau), tau, backbone.encode(images, state, words), CAUSAL
            )
        )

    expected = run()
    if not autocast:
        for module in modules:
            module.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = run()
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().mean() < 0.05 * expected.abs().mean()
    found.sum().backward()


def test_narrow_states_and_actions_are_padded_and_wide_ones_are_not():
    backbone, enter, leave = make(state_dim=3, width=2)
    images, state, words = observe()
    context = backbone.encode(images, state[:, :3], words)
    padded = backbone.encode(
        images, torch.cat([state[:, :3], torch.zeros(3, published.STATE - 3)], dim=1), words
    )
    assert torch.equal(context.keys[0][0], padded.keys[0][0])
    tokens = enter(torch.randn(3, STEPS, 2), torch.ones(3, 1, 1))
    assert leave(tokens).shape == (3, STEPS, 2)
    assert (
        backbone.input_head(40)(torch.randn(3, STEPS, 40), torch.ones(3, 1, 1)).shape
        == tokens.shape
    )
    assert backbone.output_head(40)(tokens).abs().max() == 0
    with pytest.raises(UserError, match=r"the state has 8 numbers, this pi0 reads 7"):
        make(state_dim=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "model.pi0.layers is 0: it must be at least 1"),
        (
            {"heads": 8, "kv_heads": 3},
            "model.pi0.heads is 8: it must be a multiple of model.pi0.kv_heads, 3",
        ),
        ({"head_dim": 7}, "model.pi0.head_dim is 7: it must be even"),
    ],
)
def test_an_impossible_configuration_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        Pi0Config(**change)


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize(
    "dropped",
    [published.LANGUAGE + ".embed_tokens.weight", published.PALIGEMMA + ".lm_head.weight"],
)
def test_either_naming_loads_with_either_copy_of_the_embedding(tmp_path, prefix, dropped):
    weights = published.random_weights()
    embedding = weights[f"{published.LANGUAGE}.embed_tokens.weight"]
    write(tmp_path, {prefix + name: tensor for name, tensor in weights.items() if name != dropped})
    backbone, enter, leave = make()
    load_pi0(tmp_path / "model.safetensors", backbone, enter, leave)
    assert torch.equal(backbone.words.weight, embedding)
    assert torch.equal(leave.weight, weights["action_out_proj.weight"])


def test_a_checkpoint_in_parts_loads(tmp_path):
    weights = published.random_weights()
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({name: weights[name].bfloat16() for name in inside}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps(
            {"weight_map": {name: file for file, inside in parts.items() for name in inside}}
        )
    )
    modules = make()
    load_pi0(tmp_path, *modules)
    norm = modules[0].norm.weight
    assert torch.equal(norm, weights[f"{published.GEMMA_EXPERT}.norm.weight"].bfloat16().float())
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2.safetensors' is missing"):
        load_pi0(tmp_path, *modules)
    index.write_text("[]")
    with pytest.raises(UserError, match=r"index.json' is broken"):
        load_pi0(tmp_path, *modules)


def test_each_kind_of_fault_is_named_and_nothing_is_loaded(tmp_path):
    weights = published.random_weights()
    missing = f"{published.GEMMA_EXPERT}.layers.1.mlp.up_proj.weight"
    del weights[missing], weights["state_proj.bias"]
    weights["something.else"] = torch.zeros(1)
    # One layer too many.
    weights[f"{published.LANGUAGE}.layers.3.mlp.up_proj.weight"] = torch.zeros(1)
    weights["action_in_proj.weight"] = torch.zeros(published.EXPERT, 3)
    modules = make()
    before = modules[0].norm.weight.clone()
    with pytest.raises(UserError) as error:
        load_pi0(write(tmp_path, weights), *modules)
    message = str(error.value)
    assert f"missing state_proj.bias, {missing}" in message
    assert f"unexpected {published.LANGUAGE}.layers.3.mlp.up_proj.weight, something.else" in message
    assert (
        f"action_in_proj.weight is ({published.EXPERT}, 3) instead of "
        f"({published.EXPERT}, {published.ACTION})" in message
    )
    assert torch.equal(modules[0].norm.weight, before)


def test_an_older_checkpoint_is_refused_in_a_line_that_can_be_read(tmp_path):
    weights = {f"old.{name}": tensor for name, tensor in published.random_weights().items()}
    with pytest.raises(UserError) as error:
        load_pi0(write(tmp_path, weights), *make())
    message = str(error.value)
    assert message.count(" more") == 2 and len(message) < 1300
    assert "LeRobot's pi0_base; convert an older checkpoint" in message


def test_each_used_tensor_is_required(tmp_path, monkeypatch):
    weights = published.random_weights()
    unused = {
        f"{published.LANGUAGE}.norm.weight",
        "paligemma_with_expert.gemma_expert.lm_head.weight",
    }
    unused |= {f"{published.LANGUAGE}.layers.2.self_attn.{n}_proj.weight" for n in "qo"}
    unused |= {f"{published.LANGUAGE}.layers.2.mlp.{n}_proj.weight" for n in ("gate", "up", "down")}
    unused |= {f"{published.LANGUAGE}.layers.2.post_attention_layernorm.weight"}
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    monkeypatch.setattr("alam_core.checkpoints.listing", ", ".join)  # names all of them
    with pytest.raises(UserError) as error:
        load_pi0(tmp_path, *make())
    named = {word.strip(",;()") for word in str(error.value).split() if "." in word}
    assert {name for name in weights if name in named} == set(weights) - unused - {
        f"{published.PALIGEMMA}.lm_head.weight"
    }


def test_files_that_are_not_weights_are_refused(tmp_path):
    modules = make()
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor")
    for path, message in (
        (tmp_path / "pi0.bin", "is not a safetensors file"),
        (tmp_path / "a.safetensors", "is missing"),
        (tmp_path, "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            load_pi0(path, *modules)


def test_an_instruction_is_start_text_newline_padding(tmp_path):
    for name, text in Pi0Tokenizer(published.make_tokenizer()).files().items():
        (tmp_path / name).write_text(text)
    tokenizer = Pi0Tokenizer.from_folder(tmp_path, max_words=7)
    ids = tokenizer([" push the_red\nblock ", "push"])
    assert ids.dtype == torch.long
    assert ids.tolist() == [[2, 5, 6, 7, 8, 4, 0], [2, 5, 4, 0, 0, 0, 0]]


def test_instructions_that_do_not_fit_are_refused():
    tokenizer = Pi0Tokenizer(published.make_tokenizer(), max_words=5)
    with pytest.raises(UserError, match=r"has 6 tokens, this policy reads 5: 'push the red block"):
        tokenizer(["push the red block"])
    with pytest.raises(UserError, match="empty"):
        tokenizer([" \n"])


def test_a_missing_tokenizer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(
        UserError,
        match=r"neither '.*tokenizer.json' nor among .* "
        r"`hf download google/paligemma-3b-pt-224 tokenizer.json`",
    ):
        Pi0Tokenizer.from_folder(tmp_path)
    cached = tmp_path / "cached.json"
    published.make_tokenizer().save(str(cached))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(cached))
    assert Pi0Tokenizer.from_folder(tmp_path, 4)(["push"]).tolist() == [[2, 5, 4, 0]]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        Pi0Tokenizer.from_folder(tmp_path)
    with pytest.raises(UserError, match="has no <bos>"):
        Pi0Tokenizer(published.make_tokenizer(("<unk>", "push")))


def test_the_policy_package_loads_no_transformers():
    code = (
        "import sys, alam_core.policy.joint, alam_core.policy.pi0.factory\n"
        "from alam_core.policy.config import ModelConfig\n"
        "ModelConfig('pi0', image_size=224), ModelConfig('small')\n"
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
