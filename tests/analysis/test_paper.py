"""Claims about what Hu et al. print: computed here to the same digits, or a note says why not."""

from dataclasses import replace

import pytest

from minilora.analysis.counting import ARCHITECTURES, lora_parameters, total_parameters
from minilora.analysis.paper import GPT3_PRINTED, HU_2021

QV = ["q_proj", "v_proj"]


def test_gpt3_by_the_formula_has_651_5_million_fewer_than_the_lora_paper_prints():
    total = total_parameters(ARCHITECTURES["gpt3-175b"])
    assert total == 174_604_259_328
    assert GPT3_PRINTED - total == 651_540_672
    untied = replace(ARCHITECTURES["gpt3-175b"], tie_embeddings=False)
    assert total_parameters(untied) - total == 617_558_016


def test_the_paper_is_matched_to_its_printed_digits_or_a_note_says_why_not():
    for claim in HU_2021:
        assert (claim.rounded == claim.printed) == (claim.note == ""), claim.name
    assert [(claim.rounded, claim.printed, claim.unit) for claim in HU_2021] == [
        ("174,604.3", "175,255.8", "million"),
        ("4.7", "4.7", "million"),
        ("18.9", "18.9", "million"),
        ("37.7", "37.7", "million"),
        ("9,285", "10,000", "times"),
        ("19", "18", "million"),
        ("19", "18", "million"),
        ("19", "18", "million"),
        ("0.39", "0.35", "million"),
        ("0.3", "0.3", "million"),
        ("351", "350", "GB"),
        ("38", "35", "MB"),
        ("35", "35", "TB"),
        ("354", "354", "GB"),
    ]


@pytest.mark.parametrize("claim", HU_2021, ids=lambda claim: claim.name)
def test_the_sum_beside_a_claim_gives_its_number(claim):
    assert eval(claim.how, {"__builtins__": {}}) == claim.computed


def test_the_rows_of_table_5_have_the_same_budget():
    budgets = {claim.computed for claim in HU_2021 if claim.name.startswith("Table 5")}
    assert budgets == {18.874368}


def test_at_rank_1_lora_trains_37_142_times_fewer_numbers_of_gpt3():
    assert round(GPT3_PRINTED / lora_parameters(ARCHITECTURES["gpt3-175b"], 1, QV)) == 37_142


def test_the_two_counts_that_the_paper_rounds():
    assert lora_parameters(ARCHITECTURES["gpt2-medium"], 4, QV) == 393_216
    assert lora_parameters(ARCHITECTURES["gpt2"], 8, QV) == 294_912  # RoBERTa base: same matrices
