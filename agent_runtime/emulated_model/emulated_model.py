"""The seam between the endpoint and whatever decides what is said."""

from __future__ import annotations

from typing import Protocol

from agent_runtime.emulated_model.model_call import ModelCall
from agent_runtime.emulated_model.reply import Reply


class EmulatedModel(Protocol):
    """Decides what is said; the same call gets the same reply."""

    def reply(self, call: ModelCall) -> Reply:
        """Return all of one choice, before its first token is generated.

        Raises:
            InvalidRequestError: A schema or a pattern that can't be served; names the field.
        """
        ...
