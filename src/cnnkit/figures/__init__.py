"""What rooms draw with: contact sheets, curves, pieces of SVG, tables in HTML. Only `core` lies below."""

from cnnkit.figures.curves import Panel, Plot, Series, text_plot
from cnnkit.figures.html import html_table
from cnnkit.figures.sheet import contact_sheet, stack_sheets

__all__ = ["Panel", "Plot", "Series", "contact_sheet", "html_table", "stack_sheets", "text_plot"]
