"""Terminal tables and their number formats."""
