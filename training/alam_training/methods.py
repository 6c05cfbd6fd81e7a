"""The methods that results compare: the key of each in run folders and result files, and its label
in tables and plots.

Stage 1 compares transition models, stage 2 policies. A method that is not listed here is shown
under its own key, after the others.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One row or column of a comparison.

    key: its name in run folders (<key>_s<seed>) and result files. label: its name in tables and
    plots. paper: success on MetaWorld that the paper reports for it (%), None if it has no such
    row.
    """

    key: str
    label: str
    paper: float | None = None


# Transition models of stage 1, in the order of tables. The paper's success of a policy with their
# latents is from Table 4.
TRANSITION_MODELS = (
    Method("lam", "LAM", 55.4),
    Method("alam", "ALAM", 78.0),
    Method("alam_weight3", "ALAM, weight 3"),
    Method("antisymmetric", "antisymmetric"),
    Method("potential", "potential"),
    Method("keypoints", "keypoints"),
    Method("gaussian", "Gaussian (DLAM)"),
    Method("features", "AlexNet features"),
    Method("no_rev_add", "without L_rev and L_add", 58.3),
    Method("no_rev", "without L_rev", 63.6),
    Method("no_add", "without L_add", 67.2),
)
# The rows of Table 4 in results/transition_ablation.json -> the method that each row shows.
ABLATION_ROWS = {
    "lam": "lam",
    "no_rev_add": "no_rev_add",
    "no_rev": "no_rev",
    "no_add": "no_add",
    "full": "alam",
}
# Policies of stage 2. The paper's success is from Table 3, with pi0 on the 50 tasks of MT50.
POLICIES = (
    Method("none", "no latents", 47.9),
    Method("lam_joint", "LAM, joint", 65.0),
    Method("alam_two_stage", "ALAM, two-stage", 68.7),
    Method("alam_joint", "ALAM, joint", 85.0),
    Method("alam_diffusion", "ALAM, joint diffusion", 65.6),
)
# Policies that the paper does not compare: latents of neighbouring frames instead of sums.
OTHER_POLICIES = (
    Method("lam_adjacent", "LAM, joint, adjacent frames"),
    Method("alam_adjacent", "ALAM, joint, adjacent frames"),
)
# Policies of the study of few labels; "_video" is added to the key of one that also learns from
# video without labels.
FEW_LABELS = (
    Method("none", "no latents"),
    Method("idm", "labels by an inverse dynamics model"),
    Method("zeros", "latents are zeros"),
    Method("random", "latents are random"),
    Method("lam", "LAM"),
    Method("alam", "ALAM"),
    Method("potential", "potential"),
    Method("keypoints", "keypoints"),
    Method("gaussian", "Gaussian (DLAM)"),
    Method("features", "AlexNet features"),
    Method("alam_grounded", "ALAM, grounded"),
    Method("keypoints_grounded", "keypoints, grounded"),
    Method("oracle", "true motion (oracle)"),
    Method("all_labels", "all labels"),
)
VIDEO = "_video"
# Interventions on a trained policy, Table 11 of the paper (Appendix F).
INTERVENTIONS = (
    Method("default", "as trained", 85.0),
    Method("freeze", "latents stay noise", 76.3),
    Method("block", "actions do not see latents", 76.4),
    Method("shuffle", "latents shuffled in time", 75.3),
)

ORDER = {method.key: place for place, method in enumerate(TRANSITION_MODELS)}
_LABELS = {method.key: method.label for method in (*TRANSITION_MODELS, *POLICIES, *OTHER_POLICIES)}


def label(key: str) -> str:
    """The label of a method in tables and plots; for a method that is not listed, its key with
    spaces instead of underscores."""
    return _LABELS.get(key) or key.replace("_", " ")


def arm_label(key: str) -> str:
    """The label of an arm of the study of few labels."""
    arm = key.removesuffix(VIDEO)
    known = {method.key: method.label for method in FEW_LABELS}
    return known.get(arm, arm.replace("_", " ")) + (" + video" if arm != key else "")


def arm_place(key: str) -> tuple[int, str]:
    """Position of an arm in tables; those that are not listed come last."""
    order = [method.key for method in FEW_LABELS]
    arm = key.removesuffix(VIDEO)
    return (order.index(arm) if arm in order else len(order), key)


def place(key: str) -> int:
    """Position of a transition model in tables; those that are not listed come last."""
    return ORDER.get(key, len(ORDER))
