"""Compiles the modules that simulations spend their time in to machine code, beside their sources.

    python tools/compile_hot_modules.py           # needs a C compiler; half a minute
    python tools/compile_hot_modules.py --clean   # back to Python

The sources stay what they are, typed Python, and run without: mypyc only makes them faster.
Compiled files are this machine's and this interpreter's; edit a source and it has no effect until
it is compiled again, or the compiled files are gone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("hw_model", "scheduler", "agent_runtime")
HOT = (
    "hw_model/transfer.py",
    "hw_model/step_costs.py",
    "hw_model/step_time.py",
    *(
        f"hw_model/engine/{name}.py"
        for name in (
            "block_pool",
            "block_run",
            "decode_run",
            "engine_core",
            "host_tier",
            "kv_events",
            "kv_manager",
            "kv_residency",
            "kv_usage",
            "request",
            "request_loads",
            "request_queue",
            "solo_turn",
            "step_clock",
            "step_plan",
            "step_scheduler",
        )
    ),
    *(
        f"agent_runtime/simulation/{name}.py"
        for name in ("event_queue", "rack_simulation", "session_run")
    ),
    "agent_runtime/measurement/timeline_sampler.py",
    "agent_runtime/measurement/turn_log.py",
    "agent_runtime/workload/session_script.py",
    *(
        f"scheduler/{name}.py"
        for name in (
            "cluster_scheduler",
            "commands",
            "cost",
            "events",
            "load_order",
            "policy",
            "prefix_tree",
            "rack",
            "receipt",
            "session",
        )
    ),
    *(
        f"scheduler/panjiu/{name}.py"
        for name in (
            "departures",
            "foresight",
            "held_turns",
            "kv_custody",
            "kv_ledger",
            "links",
            "option",
            "policy",
            "prefill_backlog",
            "pricing",
            "room",
            "settings",
            "tenant_shares",
            "urgency",
        )
    ),
    *(
        f"scheduler/placement/{name}.py"
        for name in ("consistent_hash", "home_for_life", "least_loaded", "round_robin")
    ),
)


def compiled_files() -> list[Path]:
    """Return what an earlier run left."""
    suffixes = ("*.so", "*.pyd")
    beside = [path for name in PACKAGES for s in suffixes for path in (ROOT / name).rglob(s)]
    return [*beside, *(path for s in suffixes for path in ROOT.glob(f"*__mypyc{s}"))]


def clean() -> None:
    """Delete what an earlier run left."""
    for path in compiled_files():
        path.unlink()


def compile_hot_modules() -> int:
    """Compile in a copy, since the compiler litters, and bring the results; return its code."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for package in PACKAGES:
            shutil.copytree(ROOT / package, copy / package)
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        mypyc = Path(sys.executable).with_name("mypyc")
        done = subprocess.run(
            [str(mypyc), "--python-version", python, *HOT],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.stderr.write(done.stdout[-4000:] + done.stderr[-4000:])
            return done.returncode
        made = [path for s in ("*.so", "*.pyd") for path in copy.rglob(s)]
        for path in made:
            place = path.relative_to(copy)
            if place.parts[0] != "build":
                shutil.copy2(path, ROOT / place)
    print(f"compiled {len(HOT)} modules; back to Python: {Path(__file__).name} --clean")
    return 0


def main() -> int:
    """Compile or clean."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clean", action="store_true", help="delete the compiled files")
    args = parser.parse_args()
    clean()
    return 0 if args.clean else compile_hot_modules()


if __name__ == "__main__":
    sys.exit(main())
