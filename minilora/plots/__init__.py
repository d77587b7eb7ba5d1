"""How a figure of ours looks (those of a study are in its own file), as `plots.NAME`."""

from minilora.experiments.rows import distinct, select
from minilora.plots.adapters import inspection_figure
from minilora.plots.comparisons import compare_figure, plot_costs, plot_learning_curves
from minilora.plots.counts import counts_figure, plot_counts
from minilora.plots.diagrams import block_picture, graph_picture
from minilora.plots.exams import exam_figure, exam_rates_figure, plot_exam
from minilora.plots.house_style import COLORS, rank_color, save_figure, shade, show, style
from minilora.plots.pictures import counts_picture, draw_full, draw_lora, lora_picture
from minilora.plots.profiles import plot_profile, profile_figure

__all__ = [
    "COLORS", "block_picture", "compare_figure", "counts_figure", "counts_picture", "distinct",
    "draw_full", "draw_lora", "exam_figure", "exam_rates_figure", "graph_picture",
    "inspection_figure", "lora_picture",
    "plot_costs", "plot_counts", "plot_exam", "plot_learning_curves", "plot_profile",
    "profile_figure", "rank_color", "save_figure", "select", "shade", "show", "style",
]  # fmt: skip
