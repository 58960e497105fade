"""The command ``panjiu``, counted: python -m tests.soak.gateway_process CENSUS_FILE serve ..."""

import sys
from pathlib import Path

from agent_runtime.cli.main import main
from tests.soak.census import listen_for_censuses

if __name__ == "__main__":
    listen_for_censuses(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
