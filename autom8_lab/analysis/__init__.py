"""Arithmetic on frames of model calls: each function takes rows like `al.ledger_df()`'s and returns a frame.

They know no database, so that a frame of your own works as well: it needs the columns it is asked about, and of the
others those it has. `by` and `freq` mean what they mean in `al.usage_df`.
"""

from .comparison import compare
from .latency import latency
from .performance import model_performance
from .usage import cost, usage

__all__ = ["compare", "cost", "latency", "model_performance", "usage"]
