"""An agent of somebody's program, named on the command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from agent_runtime.errors import ConfigError
from agent_runtime.sdk.agent import Agent


def named_agent(name: str) -> Agent:
    """Return an agent, e.g. ``fleet:CODER``: CODER of fleet.py, in this folder or installed.

    Raises:
        ConfigError: There is none.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(f"--agent {name}: write MODULE:NAME, e.g. fleet:CODER")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"--agent {name}: no module {module_name!r} in {here} or installed; start in the "
            "program's folder, or set PYTHONPATH"
        ) from error
    agent = getattr(module, attribute, None)
    if isinstance(agent, Agent):
        return agent
    agents = ", ".join(key for key, value in vars(module).items() if isinstance(value, Agent))
    raise ConfigError(
        f"--agent {name}: {module_name} has no agent {attribute!r}; it has: {agents or 'none'}"
    )
