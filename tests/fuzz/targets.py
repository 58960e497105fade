"""What is fed with anything, and what it may raise of it: its own errors, and nothing else."""

from contextlib import suppress

from agent_runtime.backends.kv_event_wire import (
    BlockRemoved,
    BlockStored,
    EventBatch,
    encode_batch,
    parse_frames,
)
from agent_runtime.backends.vllm_servers.engine_metrics import parse_metrics
from agent_runtime.backends.vllm_servers.kv_residency import KvResidency
from agent_runtime.errors import AgentRuntimeError
from agent_runtime.gateway.dialects.chat_reading import read_chat
from agent_runtime.gateway.dialects.completions_reading import read_completion
from agent_runtime.gateway.dialects.messages_reading import read_count, read_messages
from agent_runtime.gateway.dialects.responses_reading import read_responses
from agent_runtime.gateway.dialects.responses_wire import ResponsesRequest
from agent_runtime.gateway.neutral_request import ChatPrompt, NeutralRequest
from agent_runtime.gateway.relay.chat_apis import ChatApi, CompletionsApi
from agent_runtime.gateway.relay.chat_replies import StreamedReply, WholeReply
from agent_runtime.gateway.relay.message_replies import StreamedMessage, WholeMessage
from agent_runtime.gateway.relay.messages_api import MessagesApi
from agent_runtime.gateway.relay.relayed_call import read_call
from agent_runtime.gateway.relay.response_replies import StreamedResponse, WholeResponse
from agent_runtime.gateway.relay.responses_api import ResponsesApi
from agent_runtime.gateway.response_store import ResponseStore, StoredResponse, StoreLimits
from agent_runtime.gateway.session_keys import Caller
from agent_runtime.gateway.session_wire import ForkedSession, NewSession, SessionHint
from agent_runtime.gateway.tokenise_route import TokenizeRequest
from agent_runtime.gateway.wire import parse_body
from agent_runtime.measurement.decision_reading import read_decisions
from agent_runtime.prompts.chat_prompt import PromptMemory, render_chat
from scheduler.ids import ReplicaId
from tests.fuzz.target import Target
from tests.fuzz.trace_target import TRACE_TARGET
from tests.fuzz.wire_targets import WIRE_TARGETS

CALLER = Caller({})
SPLITS = 7
"""Where a reply is cut is drawn from its first byte, modulo this."""


def feed_replies(data: bytes) -> None:
    """An engine's answer, cut somewhere."""
    cut = len(data) * (data[0] % SPLITS) // SPLITS if data else 0
    for make in (
        lambda: StreamedReply(wants_usage=True),
        lambda: StreamedReply(wants_usage=False),
        WholeReply,
        StreamedMessage,
        WholeMessage,
        StreamedResponse,
        WholeResponse,
    ):
        reader = make()
        try:
            for piece in (data[:cut], data[cut:]):
                reader.feed(piece)
            reader.end()
            reader.message()
            facts = reader.facts()
        except AgentRuntimeError:
            continue
        for number in (facts.num_prompt_tokens, facts.num_cached_tokens):
            assert number is None or (type(number) is int and number >= 0), number
        assert type(facts.num_output_tokens) is int, facts
        assert facts.num_output_tokens >= 0, facts
        assert all(isinstance(name, str) for name in facts.tool_names), facts


def feed_bodies(data: bytes) -> None:
    """A client's request, before the emulated rack and before engines."""
    store: ResponseStore[StoredResponse] = ResponseStore(StoreLimits(), lambda: 0.0)

    def read_items(body: bytes, caller: Caller) -> tuple[object, NeutralRequest]:
        asked = parse_body(ResponsesRequest, body)
        return asked, read_responses(asked, caller, store)

    for read in (read_chat, read_completion, read_messages, read_items):
        with suppress(AgentRuntimeError):
            for asked in read(data, CALLER)[1].prompts:
                if isinstance(asked, ChatPrompt):
                    PromptMemory(16).open_prompt(render_chat(asked.messages, asked.tools))
    with suppress(AgentRuntimeError):
        read_count(data, CALLER)
    for kind in (TokenizeRequest, NewSession, ForkedSession, SessionHint):
        with suppress(AgentRuntimeError):
            parse_body(kind, data)
    for api in (ChatApi(), CompletionsApi(), MessagesApi(), ResponsesApi()):
        with suppress(AgentRuntimeError):
            call = read_call(api, data, CALLER, {})
            prompt = call.prompt()
            prompt.open_in(PromptMemory(16), None, 1000)
            prompt.history.digests()
            call.engine_call()
            assert call.output_cap is None or call.output_cap >= 0


def _kv_events(data: bytes) -> None:
    """Batches of KV events, one after the other."""
    residency = KvResidency(2)
    for part in data.split(b"\n\n"):
        with suppress(AgentRuntimeError):
            _, _, batch = parse_frames([b"", bytes(8), part])
            residency.apply(ReplicaId(0), batch.events)
        residency.check_invariants()


def _metrics(data: bytes) -> None:
    """An engine's page of metrics."""
    parse_metrics(data.decode("utf-8", "replace"))


def _event_logs(data: bytes) -> None:
    """An event log."""
    with suppress(AgentRuntimeError):
        list(read_decisions(enumerate(data.split(b"\n"), start=1), "log"))


_CHAT = (
    b'{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":[{'
    b'"type":"text","text":"u"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"'
    b'c","type":"function","function":{"name":"f","arguments":"{\\"a\\":1}"}}]},{"role":"t'
    b'ool","tool_call_id":"c","content":"r"}],"tools":[{"type":"function","function":{"nam'
    b'e":"f","parameters":{"type":"object"}}}],"stream":true,"max_tokens":5,"session_id":"'
    b's","priority":1,"cache_salt":"x","panjiu":{"expected_tool_s":3},"response_format":{"'
    b'type":"json_object"}}'
)
_STREAM = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":['
    b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\ndata'
    b': {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"in'
    b'dex":0,"delta":{"content":" w"},"finish_reason":null}]}\n\ndata: {"id":"1","object":'
    b'"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"tool'
    b'_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{}"}}]},"finish_rea'
    b'son":"tool_calls"}]}\n\ndata: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"com'
    b'pletion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}\n\n'
    b"data: [DONE]\n\n"
)
_WHOLE = (
    b'{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"w","tool_ca'
    b'lls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"finis'
    b'h_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_d'
    b'etails":{"cached_tokens":1}}}'
)
_MESSAGE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","role":"assi'
    b'stant","content":[],"usage":{"input_tokens":3,"output_tokens":0}}}\n\nevent: content'
    b'_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":'
    b'"text","text":""}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta'
    b'","index":0,"delta":{"type":"text_delta","text":"w"}}\n\nevent: message_delta\ndata:'
    b' {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens"'
    b':2}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_RESPONSE = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","stat'
    b'us":"in_progress","output":[]}}\n\nevent: response.output_text.delta\ndata: {"type":'
    b'"response.output_text.delta","delta":"w"}\n\nevent: response.completed\ndata: {"type'
    b'":"response.completed","response":{"id":"r","status":"completed","output":[{"type":"'
    b'message","role":"assistant","content":[{"type":"output_text","text":"w"}]}],"usage":'
    b'{"input_tokens":3,"output_tokens":2,"input_tokens_details":{"cached_tokens":1}}}}\n'
    b"\n"
)
_STORED = BlockStored([1, 2], None, [5, 6, 7, 8], 2, None, "GPU", None, group_idx=0)
_LOG = (
    b'{"t":0.0,"event":"turn_arrived","turn":"a#1","session":"a","prompt_tokens":10,"outpu'
    b't_tokens":2,"do":[{"do":"dispatch","turn":"a#1","replica":0}]}\n{"t":1.0,"event":"pr'
    b'efill_ended","turn":"a#1","cached_tokens":0}\n{"t":2.0,"event":"turn_ended","turn":"'
    b'a#1","context_tokens":12}\n'
)
_METRICS = (
    b'vllm:num_requests_running{engine="0"} 1.0\nvllm:kv_cache_usage_perc{engine="0"} 0.25'
    b'\nvllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
)

_MESSAGES = (
    b'{"model":"m","max_tokens":3,"system":[{"type":"text","text":"s","cache_control":{"type":'
    b'"ephemeral"}}],"messages":[{"role":"user","content":[{"type":"text","text":"u"}]}]}'
)
_ITEMS = (
    b'{"model":"m","input":[{"type":"message","role":"user","content":"u"},{"type":'
    b'"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":'
    b'"function_call_output","call_id":"c","output":"o"}],"instructions":"i","store":true}'
)

TARGETS = {
    "bodies": Target(
        feed_bodies,
        (
            _CHAT,
            b'{"model":"m","prompt":"p","max_tokens":3,"n":2}',
            b'{"model":"m","prompt":[1,2,3],"stream":true,"stream_options":{"include_usage":true}}',
            _MESSAGES,
            _ITEMS,
        ),
    ),
    "event_logs": Target(_event_logs, (_LOG,)),
    "kv_events": Target(
        _kv_events,
        (
            encode_batch(EventBatch(1.0, [_STORED], 0)),
            encode_batch(EventBatch(2.0, [BlockRemoved([1], "GPU", group_idx=0)], 0)),
        ),
    ),
    "metrics": Target(_metrics, (_METRICS,)),
    "replies": Target(feed_replies, (_STREAM, _WHOLE, _MESSAGE, _RESPONSE)),
    "traces": TRACE_TARGET,
    **WIRE_TARGETS,
}
