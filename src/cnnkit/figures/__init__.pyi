from .curves import Panel, Plot, Series, text_plot
from .heat import heat_colours, heat_overlay
from .html import html_table
from .sheet import contact_sheet, stack_sheets

__all__ = [
    "Panel",
    "Plot",
    "Series",
    "contact_sheet",
    "heat_colours",
    "heat_overlay",
    "html_table",
    "stack_sheets",
    "text_plot",
]
