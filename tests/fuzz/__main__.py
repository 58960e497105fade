"""Feeds parsers with whatever leads further into them, by coverage (atheris):

    make fuzz CASES=1000000
    .venv-fuzz/bin/python -m tests.fuzz replies --cases 100000

What breaks one is written to ``crash-...`` in this folder, and fed again by giving that file.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["agent_runtime"]):
    from tests.fuzz.targets import TARGETS

MAX_BYTES = 4096


def main() -> None:
    """Run a target."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("crash", nargs="?", help="feed this file alone")
    parser.add_argument("--cases", type=int, default=100_000, metavar="N")
    args = parser.parse_args()
    target = TARGETS[args.target]
    if args.crash is not None:
        target.feed(Path(args.crash).read_bytes())
        return
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        options = [
            f"-runs={args.cases}",
            f"-max_len={MAX_BYTES}",
            "-timeout=10",
            "-rss_limit_mb=2048",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], target.feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
