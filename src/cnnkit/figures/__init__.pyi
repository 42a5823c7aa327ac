from .bars import bar_plot, reliability_plot
from .curves import Panel, Plot, Series, text_plot
from .figure import palette_css
from .heat import heat_colours, heat_overlay
from .html import html_table
from .plots import coverage_plot, line_plot
from .sheet import contact_sheet, stack_sheets
from .sprites import Sheet, sprite_sheet

__all__ = [
    "Panel",
    "Plot",
    "Series",
    "Sheet",
    "bar_plot",
    "contact_sheet",
    "coverage_plot",
    "heat_colours",
    "heat_overlay",
    "html_table",
    "line_plot",
    "palette_css",
    "reliability_plot",
    "sprite_sheet",
    "stack_sheets",
    "text_plot",
]
