"""A request that is ready to run: what is answered to every prompt, and what its turns ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.emulated_model.emulated_model import EmulatedModel
from agent_runtime.emulated_model.model_call import Conversation, ModelCall
from agent_runtime.emulated_model.reply import Reply
from agent_runtime.emulated_model.reply_limits import ReplyLimits
from agent_runtime.gateway.asked_of_model import asked_of_model
from agent_runtime.gateway.neutral_request import NeutralRequest
from agent_runtime.gateway.opened_prompt import OpenedPrompt
from agent_runtime.gateway.opening import Opening, breakpoint_tokens
from agent_runtime.gateway.session_directory import ChatSession
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.turn_terms import gap_after, turn_terms
from agent_runtime.prompts.block_hashes import Prompt
from agent_runtime.turns import TurnRequest
from scheduler.ids import TurnId


@dataclass(frozen=True, slots=True)
class PlannedChoice:
    """One of the replies to a request; each is a turn on the engine.

    Attributes:
        prompt_index: Which of the request's prompts it answers.
        session: Whose turn it is.
        reply: What is said.
        prompt: Its prompt with the hashes this reply leads to.
        digest: Of the conversation with this reply, or None.
    """

    prompt_index: int
    session: ChatSession
    reply: Reply
    prompt: Prompt
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """A request that is ready to run.

    Attributes:
        request: What is asked.
        choices: The answers to its prompts, in order.
        asked_s: When, on the runtime's clock.
        num_breakpoint_tokens: Of its prompt, up to the last cache breakpoint.
    """

    request: NeutralRequest
    choices: tuple[PlannedChoice, ...]
    asked_s: float
    num_breakpoint_tokens: int

    @property
    def session(self) -> ChatSession:
        """Whose turn it is; of several, the first prompt's."""
        return self.choices[0].session

    @property
    def replies(self) -> Sequence[Reply]:
        """What is said, choice by choice."""
        return [choice.reply for choice in self.choices]

    @property
    def num_prompt_tokens(self) -> int:
        """Of all its prompts, each counted once."""
        num_choices = self.request.num_choices
        return sum(choice.prompt.num_tokens for choice in self.choices[::num_choices])

    def turn_request(self, choice: PlannedChoice, turn_id: TurnId) -> TurnRequest:
        """Return what is asked of the runtime for one choice."""
        terms = turn_terms(self.request.hints, choice.session, self.asked_s)
        reply = choice.reply
        calls = reply.speech.calls if reply.finish_reason == "tool_calls" else ()
        return TurnRequest(
            turn_id=turn_id,
            session_id=choice.session.session_id,
            num_prompt_tokens=choice.prompt.num_tokens,
            num_output_tokens=reply.num_tokens,
            block_hashes=choice.prompt.block_hashes,
            streams=self.request.stream,
            gap=gap_after(
                self.request.hints,
                [call.name for call in calls],
                offers_tools=bool(self.request.tools.tools),
            ),
            parent_id=terms.parent_id,
            tenant_id=terms.tenant_id,
            priority=terms.priority,
            deadline_s=terms.deadline_s,
            token_ids=choice.prompt.token_ids,
            names_session=self.request.keys.exact is not None,
            max_output_tokens=self.request.length.max_tokens,
            cache_salt=choice.prompt.salt,
        )


@dataclass(frozen=True, slots=True)
class TurnPlanner:
    """Plans requests with an emulated model.

    Attributes:
        opening: Finds their sessions.
        emulated_model: Says what is answered.
    """

    opening: Opening
    emulated_model: EmulatedModel

    async def plan(self, request: NeutralRequest, caller: Caller) -> PlannedTurn:
        """Plan a request.

        Raises:
            RequestError: It can't be served.
        """
        opened = await self.opening.open(request)
        choices = []
        for index, prompt in enumerate(opened):
            choices += self._choices(request, index, prompt)
        return PlannedTurn(
            request,
            tuple(choices),
            caller.now_s,
            breakpoint_tokens(opened[0], request.cache_breakpoint),
        )

    def _choices(
        self, request: NeutralRequest, index: int, prompt: OpenedPrompt
    ) -> list[PlannedChoice]:
        asked = asked_of_model(request)
        session = prompt.session
        conversation = Conversation(session.public_id, prompt.messages, prompt.digests)
        limits = ReplyLimits(
            max_tokens=request.length.max_tokens,
            min_tokens=request.length.min_tokens,
            ignore_eos=request.length.ignore_eos,
            room=self.opening.room_tokens(prompt),
        )
        choices = []
        for number in range(request.num_choices):
            call = ModelCall(
                conversation,
                asked.tools,
                asked.answer_format,
                limits,
                asked.stops,
                request.seed,
                number,
                request.num_choices,
            )
            reply = self.emulated_model.reply(call)
            digest = prompt.digest_with(reply.message(), reply.tokens)
            plan = prompt.plan(reply.tokens)
            choices.append(PlannedChoice(index, session, reply, plan, digest))
        return choices
