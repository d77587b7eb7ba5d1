"""Claims about the exam's figure: it draws shares, intervals and chance, and nothing else."""

import pytest

from minilora.experiments.exam import CHANCE, COURSES, MARKED, wilson
from minilora.plots.exams import TITLES, exam_figure, exam_rates_figure, looks
from minilora.system.errors import UsageError


def row(course, seed=0, share=0.5, lr=None):
    marks = "1" * round(20 * share) + "0" * round(20 * (1 - share))
    rate = lr or (COURSES[course].rates or (None,))[0]
    return {
        "course": course, "seed": seed, "lr": rate, "marks": dict.fromkeys(MARKED, marks),
        **dict.fromkeys(MARKED, share), "nats_validation": 5 - share,
    }  # fmt: skip


def lines_of(rows, part="reworded"):
    return exam_figure(rows).axes[MARKED.index(part)].lines


def test_every_course_has_its_look_and_every_part_its_title():
    assert looks().keys() == COURSES.keys() and TITLES.keys() == set(MARKED)
    shown = [(look["color"], look["marker"]) for look in looks().values()]
    assert len({color for color, _ in shown}) == len({marker for _, marker in shown}) == len(shown)


def test_the_mean_the_interval_and_chance_are_drawn():
    rows = [row("base", share=0.2), row("lora", 0, 0.4), row("lora", 1, 0.6)]
    interval, mean, *_ = lines_of(rows)
    assert tuple(interval.get_xdata()) == pytest.approx(wilson(0.2, 20))
    assert list(mean.get_xdata()) == [0.2]
    assert any(list(line.get_xdata()) == [0.5] for line in lines_of(rows))
    for part in MARKED:
        assert list(lines_of(rows, part)[-1].get_xdata()) == [CHANCE[part]] * 2


def test_the_marks_of_seeds_are_drawn_where_there_are_several():
    one, two = [row("lora", 0, 0.4)], [row("lora", 0, 0.4), row("lora", 1, 0.6)]
    assert len(lines_of(two)) == len(lines_of(one)) + 1
    assert any(list(line.get_xdata()) == [0.4, 0.6] for line in lines_of(two))


def test_rates_that_were_only_tried_are_left_out():
    tried = row("lora", share=0.9, lr=COURSES["lora"].rates[1])
    drawn = [list(line.get_xdata()) for line in lines_of([row("lora", share=0.4), tried])]
    assert [0.4] in drawn and [0.9] not in drawn


def test_the_other_rates_are_drawn_by_rate_with_the_first_seed():
    recipe, half, twice = COURSES["lora"].rates
    rows = [row("base", share=0.1), row("lora", share=0.5), row("lora", 1, share=0.9)]
    rows += [row("lora", share=0.3, lr=half), row("lora", share=0.6, lr=twice), row("placebo")]
    right, nats = exam_rates_figure(rows).axes
    assert list(right.lines[0].get_xdata()) == [half, recipe, twice]
    assert list(right.lines[0].get_ydata()) == [0.3, 0.5, 0.6]
    assert list(nats.lines[0].get_ydata()) == [4.7, 4.5, 4.4]
    assert [t.get_text() for t in right.get_legend().get_texts()] == [COURSES["lora"].label]
    assert 0.1 in right.lines[2].get_ydata() and 4.9 in nats.lines[2].get_ydata()


def test_without_rows_there_is_nothing_to_draw():
    with pytest.raises(UsageError, match="no rows"):
        exam_figure([])
