"""Step times at the lengths of one load, each asked for once."""

from __future__ import annotations

from dataclasses import dataclass

from hw_model.agent_load import AgentLoad
from hw_model.engine.step_clock import StepTime
from hw_model.engine.step_scheduler import EngineLimits
from hw_model.step_time import StepShape


class StepTable:
    """A replica's step times at the load's lengths, remembered; between whole numbers, linear.

    One table serves every number of sessions.
    """

    __slots__ = ("_decode", "_load", "_prefill", "_step_time", "budget", "cold", "warm")

    def __init__(
        self, step_time: StepTime, load: AgentLoad, limits: EngineLimits, block_size_tokens: int
    ) -> None:
        self._step_time, self._load = step_time, load
        self._decode: dict[int, float] = {}
        self._prefill: dict[tuple[Prompt, int, int], float] = {}
        self.budget = limits.max_num_batched_tokens
        # Only whole blocks are cached: half of one, on average, is computed again.
        new = min(load.context_tokens, load.append_tokens + block_size_tokens // 2)
        self.warm = Prompt(load.context_tokens - new, new, self.budget)
        self.cold = Prompt(0, load.context_tokens, self.budget)

    def decode_s(self, sessions: float) -> float:
        """Return the seconds of a step that only decodes, for >= 1 sessions."""
        few = int(sessions)
        rest = sessions - few
        return self._decode_s(few) + (
            rest * (self._decode_s(few + 1) - self._decode_s(few)) if rest else 0.0
        )

    def prefill_s(self, prompt: Prompt, sessions: float, prompts: float) -> float:
        """Return the seconds to compute ``prompts`` prompts beside ``sessions`` decodes.

        Args:
            prompt: Of this kind.
            sessions: >= 0.
            prompts: >= 1; 1 for prompts of more than one step.
        """
        few = int(sessions)
        rest = sessions - few
        low_s = self._between_prompts(prompt, few, prompts)
        if not rest:
            return low_s
        return low_s + rest * (self._between_prompts(prompt, few + 1, prompts) - low_s)

    def _between_prompts(self, prompt: Prompt, sessions: int, prompts: float) -> float:
        prompts = min(prompts, prompt.most_a_step)
        few = int(prompts)
        rest = prompts - few
        low_s = self._prefill_s(prompt, sessions, few)
        if not rest:
            return low_s
        return low_s + rest * (self._prefill_s(prompt, sessions, few + 1) - low_s)

    def _decode_s(self, sessions: int) -> float:
        if sessions not in self._decode:
            fixed_s, per_kv_token_s = self._step_time.decode_line(sessions)
            self._decode[sessions] = fixed_s + per_kv_token_s * sessions * self._decode_kv
        return self._decode[sessions]

    def _prefill_s(self, prompt: Prompt, sessions: int, prompts: int) -> float:
        key = (prompt, sessions, prompts)
        if key not in self._prefill:
            self._prefill[key] = sum(
                self._step_time.step_s(
                    StepShape(
                        num_tokens=prompts * chunk + sessions,
                        kv_read_tokens=int(prompts * before + sessions * self._decode_kv),
                        prefill_pairs=prompts * chunk * (before + chunk / 2) if chunk > 1 else 0.0,
                        num_sequences=prompts + sessions,
                        num_new_requests=prompts if before == prompt.cached_tokens else 0,
                    )
                )
                for before, chunk in prompt.chunks()
            )
        return self._prefill[key]

    @property
    def _decode_kv(self) -> float:
        """Mean context of a session that decodes."""
        return self._load.context_tokens + self._load.output_tokens / 2


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that is partly cached.

    Attributes:
        cached_tokens: Leading tokens in the cache.
        new_tokens: To compute, >= 1.
        budget_tokens: A step computes at most.
    """

    cached_tokens: int
    new_tokens: int
    budget_tokens: int

    @property
    def steps(self) -> int:
        """Steps it takes."""
        return -(-self.new_tokens // self.budget_tokens)

    @property
    def most_a_step(self) -> int:
        """How many of its kind fit in one step."""
        return max(1, self.budget_tokens // self.new_tokens)

    def chunks(self) -> list[tuple[int, int]]:
        """Return ``(tokens before, tokens)`` of each step."""
        end = self.cached_tokens + self.new_tokens
        starts = range(self.cached_tokens, end, self.budget_tokens)
        return [(start, min(self.budget_tokens, end - start)) for start in starts]
