"""Names and instructions of MetaWorld's tasks, and the set this project trains on. Needs no
simulator.
"""

from alam_core.errors import UserError, listing

PREFIX = "metaworld"

INSTRUCTIONS = {
    "assembly": "pick up the ring by its handle and put it over the peg",
    "basketball": "pick up the ball and drop it into the basket",
    "bin-picking": "move the block from one bin to the other",
    "box-close": "pick up the lid and put it on the box",
    "button-press": "push the button on the front of the box",
    "button-press-topdown": "press the button from above",
    "button-press-topdown-wall": "reach over the wall and press the button from above",
    "button-press-wall": "reach over the wall and push the button on the front of the box",
    "coffee-button": "push the button of the coffee machine",
    "coffee-pull": "pull the mug away from the coffee machine",
    "coffee-push": "push the mug under the coffee machine",
    "dial-turn": "turn the dial",
    "disassemble": "lift the ring off the peg",
    "door-close": "close the door",
    "door-lock": "lock the door by turning the lock down",
    "door-open": "open the door",
    "door-unlock": "unlock the door by turning the lock up",
    "drawer-close": "close the drawer",
    "drawer-open": "open the drawer",
    "faucet-close": "turn the faucet off",
    "faucet-open": "turn the faucet on",
    "hammer": "pick up the hammer and drive in the nail",
    "hand-insert": "put the block into the hole",
    "handle-press": "press the handle down",
    "handle-press-side": "press the handle down from the side",
    "handle-pull": "pull the handle up",
    "handle-pull-side": "pull the handle up from the side",
    "lever-pull": "pull the lever up",
    "peg-insert-side": "insert the peg sideways into the hole",
    "peg-unplug-side": "pull the peg sideways out of the hole",
    "pick-out-of-hole": "pick the puck out of the hole and bring it to the goal",
    "pick-place": "pick up the puck and bring it to the goal",
    "pick-place-wall": "pick up the puck and bring it over the wall to the goal",
    "plate-slide": "slide the plate into the cabinet",
    "plate-slide-back": "slide the plate back out of the cabinet",
    "plate-slide-back-side": "slide the plate sideways out of the cabinet",
    "plate-slide-side": "slide the plate sideways into the cabinet",
    "push": "push the puck to the goal",
    "push-back": "pull the puck back to the goal",
    "push-wall": "push the puck around the wall to the goal",
    "reach": "reach the goal",
    "reach-wall": "reach over the wall to the goal",
    "shelf-place": "pick up the block and put it on the shelf",
    "soccer": "push the ball into the net",
    "stick-pull": "take the stick and pull the container with it",
    "stick-push": "take the stick and push the container with it",
    "sweep": "sweep the block off the table",
    "sweep-into": "sweep the block into the hole",
    "window-close": "push the window closed",
    "window-open": "push the window open",
}

TRAINING = (
    "button-press-topdown",
    "coffee-pull",
    "door-open",
    "drawer-open",
    "faucet-open",
    "hammer",
    "peg-insert-side",
    "pick-place",
    "plate-slide",
    "push",
    "sweep-into",
    "window-open",
)

# Tiers of difficulty, in which MT50's success is reported; tasks that no tier names are easy.
# Source: the lists in the evaluations of Evo-1 and LeRobot, which agree.
TIERS = {
    "medium": (
        "basketball",
        "bin-picking",
        "box-close",
        "coffee-pull",
        "coffee-push",
        "hammer",
        "peg-insert-side",
        "push-wall",
        "soccer",
        "sweep",
        "sweep-into",
    ),
    "hard": ("assembly", "hand-insert", "pick-out-of-hole", "pick-place", "push", "push-back"),
    "very hard": ("disassemble", "pick-place-wall", "shelf-place", "stick-pull", "stick-push"),
}
TIER_OF = dict.fromkeys(INSTRUCTIONS, "easy") | {
    task: tier for tier, tasks in TIERS.items() for task in tasks
}


def tasks_of(world: str) -> tuple[str, ...]:
    """The tasks that a world's name stands for: ``metaworld`` is the training set,
    ``metaworld/mt50`` all fifty, ``metaworld/<task>,<task>`` those named. Raises UserError for an
    unknown task.
    """
    _, _, which = world.partition("/")
    if world == PREFIX:
        return TRAINING
    if which == "mt50":
        return tuple(INSTRUCTIONS)
    tasks = tuple(which.split(","))
    for task in tasks:
        if task not in INSTRUCTIONS:
            known = listing(INSTRUCTIONS, like=task)
            raise UserError(f"MetaWorld has no task '{task}'; it has: {known}")
    return tasks
