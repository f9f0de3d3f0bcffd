"""What the browser gets: our script and style, and where Plotly's script is."""

from __future__ import annotations

from pathlib import Path

import plotly

ASSETS = Path(__file__).parent
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
