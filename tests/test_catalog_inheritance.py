"""``like``: what a catalog table leaves unsaid comes from another, as a guess."""

from __future__ import annotations

import pytest

from hw_model.catalog import Catalog
from hw_model.claim import Trust
from hw_model.errors import CatalogError

CATALOG = Catalog.packaged()
FASTER = """
[chips.mine]
title = "My card"
like = "h100"
hbm_bytes_per_s = { value = 5e12, source = "measured here", trust = "measured" }
"""


def test_what_a_chip_does_not_say_is_taken_over_as_a_guess() -> None:
    mine = CATALOG.with_file(FASTER, file="mine.toml").chip("mine")
    h100 = CATALOG.chip("h100")
    assert mine.hbm_bytes_per_s.value == 5e12
    assert mine.hbm_bytes_per_s.trust is Trust.MEASURED
    assert h100.gemm_efficiency.trust is Trust.MEASURED
    assert mine.gemm_efficiency.value == h100.gemm_efficiency.value
    assert mine.gemm_efficiency.trust is Trust.INFERRED
    assert mine.gemm_efficiency.source.startswith("as h100: ")


def test_a_guess_about_a_guess_says_whose_it_was_first() -> None:
    text = FASTER + '\n[chips.other]\ntitle = "Other"\nlike = "mine"\n'
    other = CATALOG.with_file(text, file="mine.toml").chip("other")
    assert other.gemm_efficiency.source.startswith("as h100: ")
    assert other.hbm_bytes_per_s.source == "as mine: measured here"


def test_what_is_only_assumed_is_not_promoted() -> None:
    mine = CATALOG.with_file(FASTER, file="mine.toml").chip("mine")
    assert mine.activation_bytes.trust is Trust.ASSUMED


def test_a_packaged_chip_can_be_changed_in_one_number() -> None:
    text = FASTER.replace("chips.mine", "chips.h100")
    chip = CATALOG.with_file(text, file="mine.toml").chip("h100")
    assert chip.hbm_bytes_per_s.value == 5e12
    assert chip.gemm_efficiency == CATALOG.chip("h100").gemm_efficiency.model_copy(
        update={
            "source": f"as h100: {CATALOG.chip('h100').gemm_efficiency.source}",
            "trust": Trust.INFERRED,
        }
    )


def test_racks_and_models_take_over_without_a_guess() -> None:
    text = """
[racks.half]
title = "Half"
like = "panjiu-al128"
num_chips = { value = 64, source = "half of it", trust = "assumed" }
"""
    half = CATALOG.with_file(text, file="half.toml").rack("half")
    assert half.domain_chips == CATALOG.rack("panjiu-al128").domain_chips
    assert half.num_chips.value == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[chips.a]\ntitle = "A"\nlike = "nothing"', "a.toml: chips.a.like: no 'nothing' here"),
        ('[chips.a]\ntitle = "A"\nlike = 3', "a.toml: chips.a.like: no 3 here"),
        (
            '[chips.a]\ntitle = "A"\nlike = "b"\n[chips.b]\ntitle = "B"\nlike = "a"',
            "is like",
        ),
        ('[chips.a]\ntitle = "A"\nlike = "a"', "is like"),
        ('[chips.a]\ntitle = "A"\nlike = "h100"\nhbm = 3', "chips.a.hbm: Extra inputs"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        CATALOG.with_file(text, file="a.toml")
