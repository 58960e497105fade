"""A tool call as the model writes it, and as it reads it again in the next prompt.

One form for both, Hermes' (that of Qwen's models and of vLLM's ``hermes`` parser), so that a client
that sends a call back extends the KV blocks that its generation filled. The id is the server's
invention and no part of the text.
"""

from __future__ import annotations

import json

CALL_OPENING = '<tool_call>\n{"name": '
BEFORE_ARGUMENTS = ', "arguments": '
CALL_END = "}\n</tool_call>"
SEPARATOR = "\n"
"""Between the text and the calls of a message, and between its calls."""


def announcement(name: str) -> str:
    """Return what comes before a call's arguments."""
    return f"{CALL_OPENING}{json.dumps(name, ensure_ascii=False)}{BEFORE_ARGUMENTS}"


def tool_call_text(name: str, arguments: str) -> str:
    """Return a call as text.

    Args:
        name: Of the function.
        arguments: JSON, taken as it is.
    """
    return announcement(name) + arguments + CALL_END
