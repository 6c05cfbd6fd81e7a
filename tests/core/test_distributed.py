"""A batch shared by two processes: losses, gradients and codebook are those of the whole batch."""

import os
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, distributed, nn

from alam_core.latent_action.config import AlgebraScale, TransitionConfig
from alam_core.latent_action.losses import latent_loss
from alam_core.latent_action.quantizer import Quantizer

RANKS = 2


def on_ranks(check: object, folder: Path) -> None:
    """Run ``check(rank, join)`` in ``RANKS`` processes. ``join()`` makes them one process group;
    what ``check`` does before that is not distributed.
    """
    torch.multiprocessing.spawn(_process, (check, str(folder / "meet")), RANKS)


def _process(rank: int, check: object, meeting: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    check(
        rank,
        lambda: distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS
        ),
    )  # type: ignore[operator]
    distributed.destroy_process_group()


def latents(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    z = net(x).unflatten(1, (3, 5))  # (B, K, D)
    return z[: len(z) // 2] + z[len(z) // 2 :], z


def losses_of_each_scale(rank: int, join: object) -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 15).double()
    x = torch.randn(2, 10, 6, dtype=torch.double)  # two frames' worth of rows, dealt out row by row
    expected = {}
    for form in get_args(AlgebraScale):
        net.zero_grad()
        loss = latent_loss(*latents(net, x.flatten(0, 1)), form)
        loss.backward()
        expected[form] = (loss.detach(), net.weight.grad.clone(), net.bias.grad.clone())
    join()  # type: ignore[operator]
    for form in get_args(AlgebraScale):
        net.zero_grad()
        loss = latent_loss(*latents(net, x[:, rank::RANKS].flatten(0, 1)), form)
        loss.backward()
        shares = [loss.detach(), net.weight.grad, net.bias.grad]
        for share, whole in zip(shares, expected[form], strict=True):
            assert not torch.allclose(share, whole, rtol=1e-6), (
                "the ranks' shares are alike: this checks nothing"
            )
            distributed.all_reduce(share)
            torch.testing.assert_close(share / RANKS, whole, rtol=1e-12, atol=1e-14)
    # Like an evaluation on one rank alone, which must not wait for the other rank.
    with torch.no_grad():
        if rank == 0:
            latent_loss(*latents(net, x.flatten(0, 1)), "whitened")


def codebook_over_many_batches(rank: int, join: object) -> None:
    def follow(shares: slice) -> tuple[list[Tensor], dict[str, Tensor]]:
        quantizer = Quantizer(
            TransitionConfig(latent_dim=4, codebook_size=16, codebook_decay=0.5)
        ).train()
        moved, before = [], None
        for step in range(12):
            z = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(step)) + step
            torch.manual_seed(100 * step + (rank if shares != slice(None) else 0))
            z = z[shares].clone().requires_grad_()
            z_q, codes = quantizer(z)
            (z_q * 3).sum().backward()
            assert torch.equal(z.grad, torch.full_like(z, 3)), "gradients go straight through"
            moved += [z_q.detach(), codes]
            assert before is None or not torch.equal(before, quantizer.codebook)
            before = quantizer.codebook.clone()
        quantizer.eval()
        moved += list(quantizer(torch.ones(2, 3, 4)))
        return moved, quantizer.state_dict()

    expected, codebook = follow(slice(None))
    assert float(codebook["vq._codebook.cluster_size"].min()) >= 0.009, (
        "unused entries were replaced"
    )
    join()  # type: ignore[operator]
    shares, together = follow(slice(rank, None, RANKS))
    assert all(torch.equal(together[name], tensor) for name, tensor in codebook.items())
    for share, whole in zip(shares[:-2], expected[:-2], strict=True):
        torch.testing.assert_close(share, whole[rank::RANKS], rtol=0, atol=2e-6)
    assert torch.equal(shares[-1], expected[-1])


@pytest.mark.slow
@pytest.mark.parametrize("check", [losses_of_each_scale, codebook_over_many_batches])
def test_two_ranks_compute_what_one_process_does(check: object, tmp_path: Path) -> None:
    on_ranks(check, tmp_path)
