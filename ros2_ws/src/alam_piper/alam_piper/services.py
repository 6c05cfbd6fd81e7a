"""The controller's services: enable, hold, reset_fault, power_off.

They run in the loop's thread. The ones that wait for the arm are coroutines, so that the loop goes
on meanwhile.
"""

import time
from collections.abc import Callable

from alam_msgs.srv import PowerOff
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from alam_core.errors import UserError, listing
from alam_piper.controller import ArmController
from alam_piper.hardware import Backend
from alam_piper.states import State

ANSWER_PATIENCE = 10.0  # s of wall time after which a service answers, whether done or not
POWER_PATIENCE = 2.0  # s of wall time for the arm to report that its motors have no power
REOPEN_PATIENCE = 1.0  # s of wall time to wait for feedback on a bus that was opened again


class ArmServices:
    """Answers requests to a controller. Call ``answer`` in every tick."""

    def __init__(self, node: Node, controller: ArmController, backend: Backend) -> None:
        self._controller = controller
        self._backend = backend
        self._logger = node.get_logger()
        self._stops = 0  # requests to hold or disable, which cancel an enabling that waits
        # Service calls in progress: future, condition to wait for, deadline (s, steady clock).
        self._waiting: list[tuple[Future, Callable[[], bool], float]] = []
        waiting = ReentrantCallbackGroup()  # the other callbacks go on
        node.create_service(SetBool, "alam/arm/enable", self._on_enable, callback_group=waiting)
        node.create_service(
            Trigger, "alam/arm/reset_fault", self._on_reset_fault, callback_group=waiting
        )
        node.create_service(Trigger, "alam/arm/hold", self._on_hold)
        node.create_service(
            PowerOff, "alam/arm/power_off", self._on_power_off, callback_group=waiting
        )

    def answer(self) -> None:
        """Answer the calls that wait for something that has happened, or that waited too long."""
        now = time.monotonic()
        for entry in list(self._waiting):
            future, done, deadline = entry
            if done() or now > deadline:
                self._waiting.remove(entry)
                future.set_result(None)

    async def _on_enable(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        controller = self._controller
        if request.data:
            stops = self._stops
            refused = await self._reopen_if_unheard()
            if refused is None and self._stops != stops:
                refused = "not enabled: asked to hold or disable meanwhile"
            refused = refused or controller.enable()
            if refused is None:
                await self._until(lambda: controller.state is not State.ENABLING)
            response.success = refused is None and controller.state in (
                State.HOLDING,
                State.EXECUTING,
            )
            response.message = refused or controller.reason
        else:
            self._stops += 1
            controller.disable()
            silent = (State.DISABLED, State.FAULT)  # FAULT also sends nothing once at rest
            await self._until(lambda: controller.state in silent)
            response.success = controller.state in silent
            response.message = f"the arm is {controller.state}: {controller.reason}"
        return response

    def _on_hold(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        controller = self._controller
        self._stops += 1
        if controller.state is State.DISABLED:
            response.message = "the arm is not enabled; nothing moves"
        else:
            controller.hold()
            response.message = f"the arm is {controller.state}: {controller.reason}"
        response.success = True
        return response

    async def _on_reset_fault(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        controller = self._controller
        if controller.state is not State.FAULT:
            response.success = True
            response.message = f"there is no fault; the arm is {controller.state}"
            return response
        refused = await self._reopen_if_unheard() or controller.reset_fault()
        response.success = refused is None
        response.message = refused or controller.reason
        return response

    async def _on_power_off(
        self, request: PowerOff.Request, response: PowerOff.Response
    ) -> PowerOff.Response:
        confirmation = PowerOff.Request.CONFIRMATION
        if request.confirm != confirmation:
            refused: str | None = (
                f"the arm drops without power: support it, then call with confirm: '{confirmation}'"
            )
        else:
            refused = self._controller.power_off()
        if refused is None:
            self._stops += 1
            self._backend.power_off()
            await self._until(lambda: not self._powered(), POWER_PATIENCE)
            if joints := self._powered():
                refused = (
                    f"the arm still reports power of {listing(joints)}: support it and switch off "
                    "its supply"
                )
        response.success = refused is None
        response.message = refused or "the power of the motors was cut"
        return response

    def _powered(self) -> list[str]:
        """The joints whose motors have power, according to the newest feedback."""
        feedback = self._controller.feedback
        on = feedback.drivers_enabled if feedback else ()
        return [f"joint{i + 1}" for i, powered in enumerate(on) if powered]

    async def _reopen_if_unheard(self) -> str | None:
        """If the arm is not heard, open the bus again, because its adapter may have been pulled and
        plugged in, and wait for feedback. Does nothing while set-points are sent. Returns why the
        bus cannot be opened, None if it is open.
        """
        controller = self._controller
        if controller.watch.is_fresh or not controller.is_silent:
            return None
        try:
            self._backend.connect()
        except UserError as error:
            return str(error)
        self._logger.info(f"opened {self._backend} again: the arm was not heard")
        await self._until(lambda: controller.watch.is_fresh, REOPEN_PATIENCE)
        return None

    async def _until(self, done: Callable[[], bool], patience: float = ANSWER_PATIENCE) -> None:
        """Wait until ``done()`` is true, for at most ``patience`` s of wall time; the loop
        continues meanwhile.
        """
        if not done():
            future: Future = Future()
            self._waiting.append((future, done, time.monotonic() + patience))
            await future
