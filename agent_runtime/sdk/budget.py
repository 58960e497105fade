"""What a session and all it starts may spend: tokens, seconds, money."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from agent_runtime.errors import BudgetExceededError, ConfigError
from agent_runtime.sdk.events import Usage

PER = 1_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens, in whatever money.

    Attributes:
        prompt: Of prompts that had to be computed.
        cached: Of prompts found in KV caches.
        output: Generated.
    """

    prompt: float
    cached: float
    output: float

    def cost(self, usage: Usage) -> float:
        """Return what tokens cost."""
        computed = usage.prompt_tokens - usage.cached_tokens
        money = computed * self.prompt + usage.cached_tokens * self.cached
        return (money + usage.output_tokens * self.output) / PER


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on a session and those it starts, together; None is no limit.

    Looked at before every model call, so the last one may go over; seconds also end what is under
    way.

    Attributes:
        tokens: Of prompts and outputs, cached ones included.
        seconds: From the session's beginning.
        cost: In the money of ``prices``.
        prices: What tokens cost.

    Raises:
        ConfigError: A limit that is not above 0, or a cost without prices.
    """

    tokens: int | None = None
    seconds: float | None = None
    cost: float | None = None
    prices: Prices | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "seconds", "cost"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ConfigError(f"budget: {name} must be above 0, not {limit}")
        if self.cost is not None and self.prices is None:
            raise ConfigError("budget: cost needs prices, e.g. Prices(0.6, 0.06, 2.4)")


NO_BUDGET = Budget()


class Spending:
    """What a session has spent, and those it started.

    Args:
        budget: Its own limits.
        whose: For messages.
        now_s: When it begins.
        parent: Whose budget this counts against, too.

    Attributes:
        usage: So far.
        deadline_s: When the time is up, on anyio's clock, the parents' included.
    """

    def __init__(
        self, budget: Budget, whose: str, now_s: float, parent: Spending | None = None
    ) -> None:
        self.usage = Usage()
        own_s = math.inf if budget.seconds is None else now_s + budget.seconds
        self.deadline_s: float = own_s if parent is None else min(own_s, parent.deadline_s)
        self._budget = budget
        self._whose = whose
        self._parent = parent

    def add(self, usage: Usage) -> None:
        """Count a model call, here and with those that started this one."""
        self.usage += usage
        if self._parent is not None:
            self._parent.add(usage)

    def check(self) -> None:
        """Let another model call begin.

        Raises:
            BudgetExceededError: Nothing is left.
        """
        budget, usage = self._budget, self.usage
        if budget.tokens is not None and usage.total_tokens >= budget.tokens:
            raise self._exceeded(f"{usage.total_tokens:,} of {budget.tokens:,} tokens")
        if budget.cost is not None and budget.prices is not None:
            cost = budget.prices.cost(usage)
            if cost >= budget.cost:
                raise self._exceeded(f"{cost:.4g} of {budget.cost:.4g} (cost)")
        if self._parent is not None:
            self._parent.check()

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Let something run until the time is up.

        Raises:
            BudgetExceededError: It was.
        """
        if self.deadline_s == math.inf:
            yield
            return
        with anyio.CancelScope(deadline=self.deadline_s) as scope:
            yield
        if scope.cancelled_caught:
            raise self._exceeded("all of its seconds")

    def _exceeded(self, spent: str) -> BudgetExceededError:
        return BudgetExceededError(
            f"session {self._whose} has spent {spent}; give it a larger budget, or less to do"
        )
