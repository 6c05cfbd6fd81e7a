"""Finds the columns of a policy's state and actions among the joints of a robot, by their names.

Data have their own order of columns (``[gripper, joint1, ...]``) and their own names
(``joint_1.pos``); a checkpoint keeps both. A: number of the robot's joints, S: width of the
policy's state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alam_core.errors import UserError, listing
from alam_core.policy.config import PolicyConfig

OPTION = "joint_names_map"  # of the policy node and of the evaluation


@dataclass(frozen=True)
class JointColumns:
    """state (S,): for each number of the policy's state, the robot's joint. action (A,): for each
    of the robot's joints, the policy's action. Both are int indices.
    """

    state: np.ndarray
    action: np.ndarray


def parse_names_map(entries: Sequence[str]) -> dict[str, str]:
    """Name in the policy's data -> name of the robot's joint, from entries ``name=joint``. Empty
    entries are skipped. Raises UserError for another form, and for a name given twice.
    """
    renamed: dict[str, str] = {}
    for entry in filter(None, entries):
        name, equals, joint = (part.strip() for part in entry.rpartition("="))
        if not (name and equals and joint):
            raise UserError(
                f"{OPTION} has the entry '{entry}': write <name in the data>=<joint of the robot>, "
                "for example joint_1.pos=joint1"
            )
        if name in renamed:
            raise UserError(f"{OPTION} names '{name}' twice: name each column once")
        renamed[name] = joint
    return renamed


def match_columns(
    config: PolicyConfig, joints: Sequence[str], renamed: Mapping[str, str] | None = None
) -> JointColumns:
    """The columns of a policy on a robot with ``joints``. The actions must be those of all joints;
    the state may lack some.

    The state of a checkpoint without names (of older versions) is taken in the order of ``joints``.
    renamed: name in the policy's data -> joint. Raises UserError if the names do not fit.
    """
    renamed = renamed or {}
    known = [*config.joint_names, *config.state_names]
    if strange := [name for name in renamed if name not in known]:
        raise UserError(
            f"{OPTION} names {listing(strange)}, but the policy's columns are "
            f"{', '.join(dict.fromkeys(known))}"
        )
    actions = [renamed.get(name, name) for name in config.joint_names]
    states = [renamed.get(name, name) for name in config.state_names]
    for what, names, found in (
        ("actions", config.joint_names, actions),
        ("state", config.state_names, states),
    ):
        if foreign := [
            name for name, joint in zip(names, found, strict=True) if joint not in joints
        ]:
            raise UserError(
                f"the policy's {what} has {listing(foreign)}, but the robot's joints are "
                f"{', '.join(joints)}: say which is which with {OPTION}, for example "
                f"{foreign[0]}={_free(joints, found)}"
            )
        if twice := [joint for joint in joints if found.count(joint) > 1]:
            raise UserError(f"the policy's {what} has {listing(twice)} twice; check {OPTION}")
    if missing := [joint for joint in joints if joint not in actions]:
        raise UserError(
            f"the policy has no actions for {', '.join(missing)}, which the robot needs: it was "
            "trained for another robot"
        )
    if not states:
        if config.state_dim != len(joints):
            raise UserError(
                f"the policy's state has {config.state_dim} numbers, the robot has {len(joints)} "
                "joints: it was trained for another robot"
            )
        if actions != list(joints):
            raise UserError(
                f"the policy's actions are in the order {', '.join(actions)}, and its checkpoint "
                "keeps no names of the state, whose order is therefore unknown: add them to its "
                'config.json as "state_names", or train it again'
            )
        states = list(joints)
    index = {joint: i for i, joint in enumerate(joints)}
    return JointColumns(
        np.array([index[joint] for joint in states]),
        np.array([actions.index(joint) for joint in joints]),
    )


def _free(joints: Sequence[str], taken: Sequence[str]) -> str:
    return next((joint for joint in joints if joint not in taken), joints[0])
