"""What cannot be drawn is refused in one sentence that names what was given."""

import pytest
from matplotlib.figure import Figure

from minilora import plots
from minilora.system.errors import UsageError


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"d_in": 0}, "d_in=0"),
        ({"d_out": -3}, "d_out=-3"),
        ({"r": 0}, "r=0"),
        ({"r": 2.5}, "r=2.5"),
        ({"r": True}, "r=True"),
        ({"r": None}, "r=None"),
        ({"d_in": float("nan")}, "d_in=nan"),
        ({"d_in": "128"}, "d_in='128'"),
    ],
)
def test_a_size_that_no_matrix_has_is_refused(sizes, named):
    with pytest.raises(UsageError, match="whole number from 1 on") as refused:
        plots.draw_lora(Figure().subplots(), **sizes)
    assert str(refused.value).startswith(named)
