"""Small engines for tests."""

from hw_model.catalog import Catalog
from hw_model.claim import Band
from hw_model.deployment import Deployment, DeploymentRequest, plan_deployment
from hw_model.engine.engine_core import EngineCore
from hw_model.engine.host_tier import HostTier, HostTierSpec
from hw_model.engine.kv_events import KvEventLog
from hw_model.engine.kv_manager import KvManager
from hw_model.engine.request import EngineRequest, RequestId
from hw_model.engine.request_queue import SchedulingPolicy
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.step_time import StepTimeModel

CATALOG = Catalog.packaged()
AL128, M890 = CATALOG.rack("panjiu-al128"), CATALOG.chip("m890")


def deployment(model: str = "qwen3-8b", **kwargs) -> Deployment:
    return plan_deployment(AL128, M890, CATALOG.model(model), DeploymentRequest(**kwargs))


def engine(
    num_blocks: int = 64,
    *,
    block_size: int = 4,
    max_num_batched_tokens: int = 32,
    max_num_seqs: int = 8,
    macro_stepping: bool = True,
    prefix_caching: bool = True,
    policy: SchedulingPolicy = SchedulingPolicy.FCFS,
    long_prefill_token_threshold: int = 0,
    async_scheduling: bool = False,
    host_blocks: int = 0,
    log: KvEventLog | None = None,
) -> EngineCore:
    host = HostTierSpec(host_blocks, 1000.0, 1e6, 1e-4) if host_blocks else None
    return EngineCore(
        KvManager(num_blocks, block_size, enable_prefix_caching=prefix_caching, log=log),
        EngineLimits(
            max_num_batched_tokens,
            max_num_seqs,
            policy,
            long_prefill_token_threshold,
            async_scheduling=async_scheduling,
        ),
        StepTimeModel(deployment(), Band.BASE),
        host=None if host is None else HostTier(host, log),
        macro_stepping=macro_stepping,
    )


def request(
    name: str, prompt: int, output: int, hashes: list[int] | None = None, priority: int = 0
) -> EngineRequest:
    return EngineRequest(RequestId(name), prompt, output, hashes or [], priority)


def chain(branch: int, num_blocks: int, shared: int = 0) -> list[int]:
    """Chained hashes: ``shared`` blocks of a common trunk, then the branch's own."""
    own = (branch + 1) * 100_000 + shared * 1000
    return [position if position < shared else own + position for position in range(num_blocks)]
