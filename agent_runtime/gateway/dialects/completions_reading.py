"""``/v1/completions``: from the body to the neutral request."""

from __future__ import annotations

from agent_runtime.gateway.client_hints import client_hints
from agent_runtime.gateway.dialects.answer_formats import format_terms
from agent_runtime.gateway.dialects.chat_wire import MAX_CHOICES
from agent_runtime.gateway.dialects.completions_wire import (
    DEFAULT_MAX_TOKENS,
    MAX_PROMPTS,
    CompletionRequest,
)
from agent_runtime.gateway.dialects.prompt_cache_terms import retention_lease_s
from agent_runtime.gateway.neutral_request import (
    LengthTerms,
    NeutralPrompt,
    NeutralRequest,
    TextPrompt,
    TokenPrompt,
    wrong,
)
from agent_runtime.gateway.session_keys import Caller, session_keys
from agent_runtime.gateway.wire import parse_body


def read_completion(body: bytes, caller: Caller) -> tuple[CompletionRequest, NeutralRequest]:
    """Read a request.

    Raises:
        InvalidRequestError: A field that is not what it must be, or that is not served.
    """
    asked = parse_body(CompletionRequest, body)
    _refuse_what_is_not_served(asked)
    prompts = _prompts(asked)
    num_choices = asked.n or 1
    if len(prompts) > MAX_PROMPTS or len(prompts) * num_choices > MAX_CHOICES:
        raise wrong("prompt", f"{MAX_CHOICES} answers at the most, prompts times n")
    neutral = NeutralRequest(
        model=asked.model,
        prompts=prompts,
        num_choices=num_choices,
        stream=bool(asked.stream),
        length=LengthTerms(
            max_tokens=DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens,
            min_tokens=asked.min_tokens or 0,
            ignore_eos=bool(asked.ignore_eos),
            stops=tuple(asked.stop or ()),
            stop_shown=bool(asked.include_stop_str_in_output),
        ),
        answer_format=format_terms(asked.response_format, asked.structured_outputs),
        seed=asked.seed,
        keys=session_keys(
            caller,
            session_id=asked.session_id,
            cache_salt=asked.cache_salt,
            scope=asked.prompt_cache_key,
        ),
        hints=client_hints(
            caller.headers,
            asked.panjiu,
            priority=asked.priority,
            lease_s=retention_lease_s(asked.prompt_cache_retention),
        ),
    )
    return asked, neutral


def _refuse_what_is_not_served(asked: CompletionRequest) -> None:
    if asked.echo:
        raise wrong("echo", "the prompt is not sent back; put it before the answer yourself")
    if asked.suffix:
        raise wrong("suffix", "nothing is filled in between; leave it out")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise wrong("best_of", "answers are not ranked; ask for n answers instead")


def _prompts(asked: CompletionRequest) -> tuple[NeutralPrompt, ...]:
    given = asked.prompt
    if isinstance(given, str):
        return (TextPrompt(given),)
    if not given:
        raise wrong("prompt", "expected a text, token ids, or a list of either; this is empty")
    texts = [one for one in given if isinstance(one, str)]
    if texts:
        return tuple(TextPrompt(text) for text in texts)
    lists = [one for one in given if isinstance(one, list)]
    if lists:
        return tuple(TokenPrompt(tokens) for tokens in lists)
    return (TokenPrompt([one for one in given if isinstance(one, int)]),)
