"""Tables of what the catalog holds, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table

from agent_runtime.measurement.summary import Assumption
from agent_runtime.report.assumptions import claim_rows
from hw_model.attention import LatentAttention
from hw_model.catalog import Catalog
from hw_model.public_claims import CheckedClaim
from hw_model.specs import ChipSpec, ModelSpec, Precision, RackSpec

TRUST_MARKS = {
    "measured": "●",
    "vendor": "◕",
    "source_code": "◕",
    "press": "◑",
    "inferred": "◔",
    "assumed": "○",
}
TRUST_LEGEND = "● measured  ◕ vendor or source code  ◑ press  ◔ inferred  ○ assumed"


def racks_table(catalog: Catalog) -> Table:
    """Return one row a rack."""
    table = _table("name", "what", "chips", "domain", "chip")
    for rack in catalog.racks.values():
        table.add_row(
            rack.name,
            rack.title,
            f"{rack.num_chips.value:.0f}",
            f"{rack.domain_chips.value:.0f}",
            rack.chip,
        )
    return table


def chips_table(catalog: Catalog) -> Table:
    """Return one row a chip; each number with its band and a mark of trust."""
    table = _table("name", "HBM GB", "TB/s", "BF16 TFLOPS", "FP8", "link GB/s one way")
    fields = ("hbm_bytes", "hbm_bytes_per_s", "bf16_flops_per_s", "fp8_flops_per_s")
    for chip in catalog.chips.values():
        rows = {row.field: row.assumption for row in claim_rows(chip.claims())}
        cells = [_marked(rows.get(field)) for field in (*fields, "link_bytes_per_s")]
        table.add_row(chip.name, *cells)
    return table


def numbers_table(rows: Iterable[Assumption], *, sources: bool) -> Table:
    """Return one row a number with its trust, and where it comes from if ``sources``."""
    table = _table("", "low", "base", "high", "unit", "trust", *(["source"] if sources else []))
    for row in rows:
        cells = (row.name, row.low, row.base, row.high, row.unit, row.trust)
        table.add_row(*cells, *([row.source] if sources else []))
    return table


def claims_table(claims: Iterable[CheckedClaim]) -> Table:
    """Return one row a public claim and reading."""
    table = _table("claim", "read as", "what comes of it", "holds")
    for claim in claims:
        table.add_row(claim.claim, claim.reading, claim.result, "yes" if claim.holds else "no")
    return table


def models_table(models: Iterable[ModelSpec]) -> Table:
    """Return one row a model."""
    table = _table(
        "name", "params B", "active B", "layers", "attention", "KV KiB/token", "state MB"
    )
    for model in models:
        table.add_row(
            f"{model.name} ○" if model.assumed else model.name,
            f"{model.num_params / 1e9:.1f}",
            f"{model.num_active_params / 1e9:.1f}",
            _layers(model),
            "MLA" if isinstance(model.attention, LatentAttention) else "GQA",
            f"{model.kv_bytes_per_token(1, Precision.BF16) / 1024:.1f}",
            f"{model.state_bytes_per_sequence() / 1e6:.0f}" if model.linear_attention else "",
        )
    return table


def rack_heading(rack: RackSpec, chip: ChipSpec) -> str:
    """Return a rack in one line."""
    return (
        f"{rack.title}: {rack.num_chips.value:.0f} x {chip.title}, domains of "
        f"{rack.domain_chips.value:.0f}"
    )


def _layers(model: ModelSpec) -> str:
    linear = model.num_layers - model.num_kv_layers
    return f"{model.num_kv_layers} + {linear} linear" if linear else str(model.num_layers)


def _marked(row: Assumption | None) -> str:
    if row is None:
        return "-"
    band = row.base if row.low == row.high else f"{row.base} ({row.low} to {row.high})"
    return f"{band} {TRUST_MARKS[row.trust]}"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
