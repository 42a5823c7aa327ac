from .curves import Panel, Plot, Series, text_plot
from .html import html_table
from .sheet import contact_sheet, stack_sheets

__all__ = ["Panel", "Plot", "Series", "contact_sheet", "html_table", "stack_sheets", "text_plot"]
