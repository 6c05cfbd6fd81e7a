"""Checks a policy or a transition model, and whether checkpoints and data belong together."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from alam_core.checkpoints import checkpoint_hash
from alam_core.data.checks import Finding, Recorded
from alam_core.errors import UserError, listing
from alam_core.latent_action import TransitionEncoder
from alam_core.policy.joint import KIND, JointPolicy
from alam_core.robots.units import likely_units
from alam_training.checks.report import CheckReport

MATCHES_DT = 0.01  # relative
BEYOND = 5.0  # standard deviations of the training data


@dataclass
class Checked:
    """A checkpoint that could be loaded; ``policy`` is None for a transition model."""

    report: CheckReport
    hash: str
    policy: JointPolicy | None


def check_checkpoint(path: Path) -> tuple[CheckReport, Checked | None]:
    """The report, and, if the files could be loaded, the checkpoint. A checkpoint that cannot be
    loaded is an error in the report.
    """
    report = CheckReport(str(path), "a checkpoint")
    try:
        kind = _kind(path)
        model = (JointPolicy if kind == KIND else TransitionEncoder).from_pretrained(path)
        found = checkpoint_hash(path)
    except UserError as error:
        report.findings.append(Finding("error", "checkpoint", str(error)))
        return report, None
    report.facts = {
        "hash": found,
        "numbers": f"{sum(p.numel() for p in model.parameters()):,} in the network",
    }
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            report.findings.append(
                Finding(
                    "error",
                    f"model.safetensors, {name}",
                    "there are numbers that are not finite: training diverged, or the file was "
                    "damaged; take another checkpoint",
                )
            )
            break
    if isinstance(model, JointPolicy):
        _describe_policy(model, report)
        return report, Checked(report, found, model)
    tokens, width = model.latent_shape
    report.what = f"a transition model of the kind '{kind}'"
    report.facts |= {
        "images": f"{model.image_size} px",
        "a transition": f"{tokens} tokens of {width} numbers",
        "codebook": f"{model.codebook_size} entries" if model.codebook_size else "none",
        "transitions add up": "yes" if model.additive else "no",
    }
    return report, Checked(report, found, None)


def check_together(
    policy: Checked, others: list[Checked], datasets: dict[str, Recorded]
) -> list[Finding]:
    """Whether a policy belongs to the transition models and data sets that were given with it."""
    assert policy.policy is not None
    config, stats, findings = policy.policy.config, policy.policy.stats, []
    encoders = [other for other in others if other.policy is None]
    if config.latent_encoder and encoders:
        given = listing(f"'{encoder.report.path}' is {encoder.hash}" for encoder in encoders)
        if config.latent_encoder not in {encoder.hash for encoder in encoders}:
            findings.append(
                Finding(
                    "error",
                    "encoder",
                    f"its latents are those of the transition model {config.latent_encoder}, but "
                    f"{given}: give the one it was trained with",
                )
            )
    for name, data in datasets.items():
        where = f"together with '{name}'"
        for what, names, columns in (
            ("actions", config.joint_names, data.action_names),
            ("state", config.state_names, data.state_names),
        ):
            lacking, further = set(names) - set(columns), set(columns) - set(names)
            if names and (lacking or further):
                findings.append(
                    Finding(
                        "error",
                        where,
                        f"it was trained on other data: of the policy's {what} the data lack "
                        f"{listing(sorted(lacking))}; only the data have "
                        f"{listing(sorted(further))}",
                    )
                )
        if len(data.state_names) != config.state_dim:
            findings.append(
                Finding(
                    "error",
                    where,
                    f"the policy's state has {config.state_dim} numbers, the data's "
                    f"{len(data.state_names)}: it was trained on other data",
                )
            )
            continue
        if abs(config.dt * data.fps - 1) > MATCHES_DT:
            findings.append(
                Finding(
                    "error",
                    where,
                    f"the policy's steps are {config.dt:g} s apart, the data's rows "
                    f"{1 / data.fps:g} s: it was trained at another rate",
                )
            )
        states = [episode.state for episode in data.episodes.values() if len(episode.state)]
        sound = stats.state_mean.shape == stats.state_std.shape == (config.state_dim,)
        if not states or not sound or not (stats.state_std > 0).all():
            continue
        order = list(range(config.state_dim))
        if set(config.state_names) == set(data.state_names):  # columns are found by name
            order = [list(data.state_names).index(name) for name in config.state_names]
        mean = np.concatenate(states).mean(0)[order]
        away = np.abs(mean - stats.state_mean) / stats.state_std
        if (away > BEYOND).any():
            names = [
                data.state_names[i] for i, far in zip(order, away > BEYOND, strict=True) if far
            ]
            findings.append(
                Finding(
                    "warning",
                    where,
                    f"the data's mean of {listing(map(repr, names))} is {away.max():.0f} standard "
                    "deviations from that of the policy's training data: other poses, or units",
                )
            )
    return findings


def _kind(path: Path) -> str:
    try:
        return str(json.loads((path / "config.json").read_text()).get("kind", ""))
    except (OSError, ValueError, AttributeError):
        return ""  # reading the checkpoint says what is wrong


def _describe_policy(policy: JointPolicy, report: CheckReport) -> None:
    config, stats = policy.config, policy.stats
    model = config.model
    report.what = f"a policy with the backbone '{model.backbone}'"
    report.facts |= {
        "views": f"{', '.join(config.views)} at {model.image_size} px",
        "state": ", ".join(config.state_names)
        or f"{config.state_dim} numbers without names, in the robot's own order",
        "actions": ", ".join(config.joint_names),
        "relative to the state": ", ".join(config.relative_joints) or "none",
        "instructions": listing(f"'{text}'" for text in config.instructions)
        if config.instructions
        else "not kept",
        "a chunk": f"{model.horizon} steps of {config.dt:g} s",
        "encoder": f"the transition model {config.latent_encoder}, for "
        f"{', '.join(config.latent_views)}"
        if config.latent_encoder
        else "none: no latents",
    }
    names = config.state_names or config.joint_names
    if len(stats.state_mean) == len(names):
        low, high = stats.state_mean - stats.state_std, stats.state_mean + stats.state_std
        for name, lower, upper in zip(names, low, high, strict=True):
            report.columns.append({"column": name, "state, mostly": f"{lower:.3g} to {upper:.3g}"})
        if hint := likely_units(stats.state_mean, names):
            report.findings.append(
                Finding(
                    "warning",
                    "stats.json, state",
                    f"the mean of {hint}; if the policy is for a Piper, convert its data and train "
                    "again",
                )
            )
    arrays = {
        "the state's mean": (stats.state_mean, config.state_dim),
        "the state's std": (stats.state_std, config.state_dim),
        "the action's mean": (stats.action_mean, len(config.joint_names)),
        "the action's std": (stats.action_std, len(config.joint_names)),
    }
    for name, (values, width) in arrays.items():
        if values.shape[-1:] != (width,) or not np.isfinite(values).all():
            wrong = f"has the shape {values.shape}, not a width of {width}, or is not finite"
        elif name.endswith("std") and (values <= 0).any():
            wrong = "is not above 0"
        else:
            continue
        report.findings.append(
            Finding(
                "error",
                "stats.json",
                f"{name} {wrong}: the file is not of this policy; copy the checkpoint again",
            )
        )
