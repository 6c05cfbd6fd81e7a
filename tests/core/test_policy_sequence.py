"""The interleaved sequence and its mask: a perturbed token changes the outputs that may see it."""

import itertools
from typing import get_args

import pytest
import torch

from alam_core.config import from_dict
from alam_core.errors import UserError
from alam_core.policy.config import ModelConfig
from alam_core.policy.sequence import ACTION, Layout, Mask
from alam_core.policy.small.expert import ActionExpert

MASKS = get_args(Mask)
VIEWS = [(), ("third_person",), ("third_person", "wrist"), ("a", "b", "c")]


@pytest.mark.parametrize(("views", "horizon"), list(itertools.product(VIEWS, (1, 2, 5))))
def test_unpack_inverts_pack(views, horizon):
    layout = Layout(views, horizon)
    streams = {name: torch.randn(3, horizon, 4) for name in layout.modalities}
    packed = layout.pack(streams)
    assert packed.shape == (3, layout.length, 4)
    unpacked = layout.unpack(packed)
    assert list(unpacked) == [*views, ACTION]
    for name, stream in streams.items():
        assert torch.equal(unpacked[name], stream)


def test_order_is_that_of_the_paper():
    layout = Layout(("th", "wr"), 3)
    number = {"th": 0.0, "wr": 1.0, ACTION: 2.0}
    streams = {
        name: torch.arange(3.0).view(1, 3, 1) * 10 + number[name] for name in layout.modalities
    }
    assert layout.pack(streams).flatten().tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22]


def test_a_missing_modality_is_an_error():
    with pytest.raises(KeyError):
        Layout(("th",), 2).pack({ACTION: torch.zeros(1, 2, 4)})


def may_see(layout: Layout, row: int, column: int, actions_see_latents: bool = True) -> bool:
    """The rule, written out: an action sees itself and every token before it; a latent sees what
    the mask allows.
    """
    per_step = len(layout.views) + 1
    row_step, row_kind = divmod(row, per_step)
    column_step, column_kind = divmod(column, per_step)
    from_action, to_action = row_kind == len(layout.views), column_kind == len(layout.views)
    if from_action:
        return column <= row and (to_action or actions_see_latents)
    if layout.mask == "block_causal":
        return column_step < row_step or (column_step == row_step and not to_action)
    if to_action:
        return False
    return column_step == row_step or (layout.mask == "past_latents" and column_step < row_step)


@pytest.mark.parametrize(
    ("views", "mask", "blocked"),
    [*itertools.product(VIEWS, MASKS, (False,)), (VIEWS[2], "past_latents", True)],
)
def test_perturbing_a_token_moves_exactly_the_outputs_that_may_see_it(views, mask, blocked):
    torch.manual_seed(0)
    layout = Layout(views, 3, mask)
    expert = ActionExpert(16, 3, 2, 32, 8).double()
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    context = expert.context_keys(torch.randn(1, 5, 8, dtype=torch.double))
    visible = layout.attention_mask(not blocked)

    def run(tokens: torch.Tensor) -> torch.Tensor:
        steps = tokens.unflatten(1, (3, len(layout.modalities)))
        return expert(
            steps, torch.full((1, 1, 1), 0.3, dtype=torch.double), context, visible
        ).flatten(1, 2)

    tokens = torch.randn(1, layout.length, 16, dtype=torch.double)
    before = run(tokens)
    for column in range(layout.length):
        perturbed = tokens.clone()
        perturbed[0, column] += torch.randn(16, dtype=torch.double)
        change = (run(perturbed) - before).abs().amax(-1)[0]
        for row in range(layout.length):
            if may_see(layout, row, column, not blocked):
                assert change[row] > 1e-9, f"token {row} does not see token {column}"
            else:
                assert change[row] == 0, f"token {row} sees token {column}"


@pytest.mark.parametrize("mask", MASKS)
def test_the_mask_of_a_shorter_chunk_is_the_corner_of_the_full_one(mask):
    for horizon in (1, 3, 5):
        short = Layout(("a", "b"), horizon, mask).attention_mask()
        assert torch.equal(
            Layout(("a", "b"), 6, mask).attention_mask()[: len(short), : len(short)], short
        )


@pytest.mark.parametrize("mask", MASKS)
def test_visibility_is_transitive_so_that_layers_do_not_leak(mask):
    visible = Layout(("a", "b"), 4, mask).attention_mask().float()
    assert torch.equal((visible @ visible) > 0, visible > 0)


def test_each_token_has_its_own_time():
    torch.manual_seed(0)
    expert = ActionExpert(16, 2, 2, 32, 8)
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    context = expert.context_keys(torch.randn(2, 5, 8))
    tokens, alone = torch.randn(2, 4, 3, 16), torch.eye(12, dtype=torch.bool)
    tau = torch.rand(2, 4, 3)
    out = expert(tokens, tau, context, alone)  # tokens that see only themselves and the context
    for h, m in itertools.product(range(4), range(3)):
        one = expert(
            tokens[:, h : h + 1, m : m + 1], tau[:, h : h + 1, m : m + 1], context, alone[:1, :1]
        )
        torch.testing.assert_close(out[:, h, m], one[:, 0, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        expert(tokens, tau[:, :1, :1], context, alone),
        expert(tokens, tau[:, :1, :1].expand(2, 4, 3), context, alone),
    )


def test_an_unknown_mask_is_refused():
    with pytest.raises(UserError, match="f.json: mask is 'none': choose one of own_step, past_la"):
        from_dict(ModelConfig, {"mask": "none"}, "f.json")
