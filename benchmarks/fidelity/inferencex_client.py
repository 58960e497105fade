"""The client of a benchmark: who sends what when, on the engine's own time.

Source: InferenceX's client, kimbochen/bench_serving.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from hw_model.engine.engine_core import EngineCore
from hw_model.engine.request import EngineRequest, RequestId

PROMPTS_A_CLIENT = 10
LEAST_LENGTH = 0.8


@dataclass(frozen=True, slots=True)
class ClosedLoad:
    """A closed loop of clients; lengths are the longest."""

    isl_tokens: int
    osl_tokens: int
    clients: int


@dataclass(frozen=True, slots=True)
class Client:
    """How the benchmark's clients behave.

    Attributes:
        least_length: Lengths are uniform between this share of the row's and all of it.
        count_burst: Whether the requests that all clients begin with count.
    """

    least_length: float
    count_burst: bool


CLIENTS = {
    "inferencex": Client(LEAST_LENGTH, count_burst=True),
    "steady": Client(1.0, count_burst=False),
}


def run_clients(
    core: EngineCore, load: ClosedLoad, client: Client, front_end_s: float
) -> tuple[float, float]:
    """Run the benchmark on an idle engine; return mean TTFT and TPOT.

    Raises:
        ConfigError: A request is longer than the engine's KV.
    """
    rng = np.random.default_rng(load.clients)
    num_requests = PROMPTS_A_CLIENT * load.clients
    isl, osl = (
        rng.integers(int(longest * client.least_length), longest, num_requests, endpoint=True)
        for longest in (load.isl_tokens, load.osl_tokens)
    )
    sent: list[float] = []
    reaching: deque[tuple[float, EngineRequest]] = deque()  # in order of time
    first, last = np.zeros(num_requests), np.zeros(num_requests)

    def send(at_s: float) -> None:
        number = len(sent)
        sent.append(at_s)
        request_id = RequestId(str(number))
        request = EngineRequest(request_id, int(isl[number]), int(osl[number]), ())
        reaching.append((at_s + front_end_s, request))

    for _ in range(load.clients):
        send(0.0)
    while True:
        event_s = core.next_event_s
        if reaching and (event_s is None or reaching[0][0] <= event_s):
            reached_s, request = reaching.popleft()
            core.add(request, reached_s)
            continue
        if event_s is None:
            break
        for generated in core.advance(event_s):
            number = int(generated.request_id)
            if first[number] == 0:
                first[number] = generated.at_s
            if generated.finished:
                last[number] = generated.at_s
                if len(sent) < num_requests:
                    send(generated.at_s)
    counted = slice(0 if client.count_burst else load.clients, None)
    ttft_s = (first - np.array(sent))[counted]
    tpot_s = ((last - first) / np.maximum(1, osl - 1))[counted]
    return float(ttft_s.mean()), float(tpot_s.mean())
