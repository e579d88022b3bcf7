"""Pictures of the lab's frames: a DataFrame in, a matplotlib Axes out. Nothing here knows a database.

Every plot draws into `ax`, or into a figure of its own, and changes no global setting. The colours are those of
Okabe and Ito, which stay apart for colour-blind readers. Of more than eight groups the seven largest are shown and
the rest is joined, and the legend says so. Colours go by the names in alphabetical order. An empty frame gives
Axes that say "no data".
"""

from .charts import (
    calls_heatmap,
    latency_distribution,
    quality_against_cost,
    spend_over_time,
    success_over_time,
    tokens_by_class,
)
from .routing import cost_quality_plane, replay_intervals
from .speed import benchmark
from .tuning import measures_by_method, rates_by_threshold, reliability_diagram

__all__ = [
    "benchmark",
    "calls_heatmap",
    "cost_quality_plane",
    "latency_distribution",
    "measures_by_method",
    "quality_against_cost",
    "rates_by_threshold",
    "reliability_diagram",
    "replay_intervals",
    "spend_over_time",
    "success_over_time",
    "tokens_by_class",
]
