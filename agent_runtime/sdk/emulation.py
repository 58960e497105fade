"""An emulated rack in the program's own process, reached without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import anyio

from agent_runtime.clock import Clock, epoch_s
from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.seeded_model import SeededModel
from agent_runtime.emulated_service import EmulatedService, ServiceOptions
from agent_runtime.errors import ConfigError
from agent_runtime.simulation.asgi_transport import StreamingAsgiTransport
from agent_runtime.simulation.virtual_time import running_virtual_loop
from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.step_scheduler import EngineLimits
from scheduler.policies import policy_entry


@dataclass(frozen=True, slots=True)
class Emulation:
    """How a rack is emulated.

    Attributes:
        policy: Decides where and when turns run; one that ``panjiu simulate --help`` lists.
        band: Which machine within what is known: ``low``, ``base`` or ``high``.
        speed: Emulated seconds per second of the event loop's clock.
        num_replicas: By default as many as the rack holds.
        tp: Chips a replica; by default the fewest whose weights use half of the HBM or less.
        seed: Of what the model makes up, and of policies that draw lots.
        replies: Says what is answered; by default made up from the seed.
        limits: Batch limits of every engine.

    Raises:
        ConfigError: A speed that is not above 0, a band or a policy that there is not.
    """

    policy: str = "panjiu"
    band: str = Band.BASE.value
    speed: float = 1.0
    num_replicas: int | None = None
    tp: int | None = None
    seed: int = 0
    replies: EmulatedModel | None = None
    limits: EngineLimits = field(default_factory=EngineLimits)

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ConfigError(f"emulation: speed must be above 0, not {self.speed}")
        bands = [band.value for band in Band]
        if self.band not in bands:
            raise ConfigError(
                f"emulation: band must be one of {', '.join(bands)}, not {self.band!r}"
            )
        policy_entry(self.policy)

    def deployment(self, rack: str, model: str) -> Deployment:
        """Lay a model out on a rack.

        Raises:
            HardwareModelError: Names that are not known, or what does not fit.
        """
        catalog = Catalog.packaged()
        spec = catalog.rack(rack)
        request = DeploymentRequest(
            tp=self.tp, num_replicas=self.num_replicas, max_num_seqs=self.limits.max_num_seqs
        )
        chip, served = catalog.chip(spec.chip), catalog.model(model)
        return plan_deployment(spec, chip, served, request, band=Band(self.band))


@asynccontextmanager
async def emulated_transport(
    rack: str, model: str, emulation: Emulation
) -> AsyncIterator[StreamingAsgiTransport]:
    """Open an emulated rack; give the way to it, for a client to enter.

    Args:
        rack: Its name.
        model: What it serves.
        emulation: How.

    Raises:
        HardwareModelError: As of ``Emulation.deployment``.
    """
    loop = running_virtual_loop()
    if emulation.speed != 1:
        loop = None  # its time is not the rack's
    service = EmulatedService(
        emulation.deployment(rack, model),
        ServiceOptions(
            Band(emulation.band), emulation.policy, emulation.limits, seed=emulation.seed
        ),
        Clock(emulation.speed, origin_s=None if loop is None else 0.0),
        emulation.replies or SeededModel(emulation.seed),
        epoch_s=epoch_s,
    )
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        moves = loop is not None and stack.enter_context(loop.moving(service.rack))
        if not moves:
            tasks.start_soon(service.rack.run)
        try:
            yield StreamingAsgiTransport(service.app)
        except Exception as error:  # noqa: BLE001 - raised again outside of the group
            raised = error
        tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised
