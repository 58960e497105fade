"""What a fit to a running engine came to: the numbers, and how far off each time is."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from hw_model.engine_fit import EngineFit
from hw_model.engine_observations import ProbeKind
from hw_model.specs import ChipSpec


def numbers_table(before: ChipSpec, after: ChipSpec) -> Table:
    """Return the numbers that moved."""
    table = Table("number", "before", "fitted")
    known = before.claims()
    for field, claim in after.claims().items():
        if field not in known:
            table.add_row(field, "", f"{claim.value:.3g}")
        elif known[field] != claim:
            table.add_row(field, f"{known[field].value:.3g}", f"{claim.value:.3g}")
    return table


def error_table(fit: EngineFit) -> Table:
    """Return the error of every single time by kind, beside how far repetitions are apart."""
    table = Table(
        "times measured", "how many", "error: p50", "p90", "bias", "repetitions: p50", "p90"
    )
    for kind in ProbeKind:
        errors, noise = fit.errors([kind]), np.abs(fit.noise([kind]))
        if not len(errors):
            continue
        sizes = np.abs(errors)
        table.add_row(
            kind.value,
            str(len(errors)),
            f"{np.median(sizes):.1%}",
            f"{np.quantile(sizes, 0.9):.1%}",
            f"{np.median(errors):+.1%}",
            f"{np.median(noise):.1%}",
            f"{np.quantile(noise, 0.9):.1%}",
        )
    return table
