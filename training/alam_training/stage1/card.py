"""The card (README.md) of a transition model."""

from alam_core.cards import model_card
from alam_core.command_line import command_line
from alam_core.data.report import DataReport
from alam_training.stage1.config import PretrainConfig

HEADLINE = ("psnr_k", "add_rel", "rev_rel", "effective_dims")  # metrics for the hub's metadata


def transition_card(
    config: PretrainConfig, metrics: dict[str, float], step: int, report: DataReport
) -> str:
    """What the model is, what it was trained on, by which command, and its held-out ``metrics``."""
    rows = report.to_dict()["sources"]
    sources = "\n".join(
        f"| {row['name']} | {', '.join(row['views'])} | {row['share']:.1%} | {row['stride']} "
        f"| {row['episodes'] - row['held_out']} | {row['held_out']} "
        f"| {len(row['broken']) + len(row['too_short']) + len(row['excluded'])} |"
        for row in rows
    )
    lines = "\n".join(f"| {name} | {value:.4g} |" for name, value in metrics.items())
    size = config.model
    body = f"""Encodes two frames of a view into a latent transition of {size.latent_tokens} x \
{size.latent_dim} numbers.
Images: {size.image_size} px RGB in [0, 1] (`alam_core.latent_action.encode_images` takes uint8 of \
any size).

- Trained on video only, no actions. Broken and too short episodes are neither trained on nor \
evaluated, nor are excluded ones:

| source | views | share of the triplets | stride | training episodes | held out \
| left out |
|---|---|---|---|---|---|---|
{sources}

- Steps: {step} of {config.loop.steps}, {config.batch} triplets each; gaps {config.gaps.kind}, \
{config.gaps.frames} strides.
- Command: `{command_line()}`

Held-out episodes, k = {config.probe_gap} strides (`alam_core/latent_action/probes.py` defines the \
metrics):

| metric | value |
|---|---|
{lines}
"""
    return model_card(
        "Transition model",
        body,
        tags=["alam", "latent-action-model", "video"],
        dataset=rows[0]["name"] if len(rows) == 1 else None,
        metrics={name: v for name, v in metrics.items() if name.split("/")[-1] in HEADLINE},
    )
