"""The surface of `import autom8_lab as al`: what is public, and a lab's verbs on the current lab."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from .agents import acting_as
from .care import check_file
from .diagnostics.benchmark import benchmark
from .errors import (
    ConfigurationError,
    ContextExists,
    ContextNotFound,
    DamagedContextWarning,
    DamagedLab,
    DecisionNotFound,
    DegradedSearchWarning,
    EmbeddingModelWarning,
    InvalidValue,
    InvalidVector,
    LabBusy,
    LabClosed,
    LabError,
    LabForked,
    LabMoved,
    LabNotFound,
    LabWarning,
    LeakWarning,
    ModelUnavailable,
    NewerSchema,
    NotALab,
    NotFound,
    PendingEmbeddingWarning,
    ReadOnlyLab,
    ReplacedLabWarning,
    SettingMismatchWarning,
    StatementTimeout,
    StorageError,
    StorageFull,
    UnrecordedUsageWarning,
    UnusablePath,
)
from .lab import Lab, compare_labs, copy_lab, current_lab, get_migration_status, repair, run_migrations, use
from .lab import open_lab as open
from .recommendation import Recommendation
from .records import Context, Report, SearchHit
from .setup import setup_database, setup_database_from_config, validate_config

if TYPE_CHECKING:
    from . import aio, mockdata, plots
    from .config import LabConfig
    from .diagnostics.running import run_database_tests
else:

    def __getattr__(name):
        # What needs pydantic or much else is loaded when it is asked for, and so are the modules of the surface.
        if name == "LabConfig":
            return importlib.import_module(".config", __package__).LabConfig
        if name == "run_database_tests":
            return importlib.import_module(".diagnostics.running", __package__).run_database_tests
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _verb(method: Callable[Concatenate[Lab, Parameters], Result]) -> Callable[Parameters, Result]:
    """Return a method of `Lab` as a function on the current lab, with the same signature and docstring."""

    @functools.wraps(method)
    def verb(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return method(current_lab(), *args, **kwargs)

    signature = inspect.signature(method)
    verb.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return verb


accesses_df = _verb(Lab.accesses_df)
alias_context = _verb(Lab.alias_context)
apply = _verb(Lab.apply)
backup = _verb(Lab.backup)
build_vector_index = _verb(Lab.build_vector_index)
check = _verb(Lab.check)
cleanup = _verb(Lab.cleanup)
compare_models = _verb(Lab.compare_models)
config_advice_df = _verb(Lab.config_advice_df)
config_df = _verb(Lab.config_df)
connection = _verb(Lab.connection)
contexts_df = _verb(Lab.contexts_df)
cost_df = _verb(Lab.cost_df)
decision_contexts_df = _verb(Lab.decision_contexts_df)
decisions_df = _verb(Lab.decisions_df)
delete_context = _verb(Lab.delete_context)
drift_df = _verb(Lab.drift_df)
embed_contexts = _verb(Lab.embed_contexts)
evaluate_search = _verb(Lab.evaluate_search)
export = _verb(Lab.export)
fit_router = _verb(Lab.fit_router)
get_context = _verb(Lab.get_context)
health = _verb(Lab.health)
import_billing = _verb(Lab.import_billing)
import_claude_code = _verb(Lab.import_claude_code)
import_codex = _verb(Lab.import_codex)
import_export = _verb(Lab.import_export)
import_litellm = _verb(Lab.import_litellm)
import_llm_embeddings = _verb(Lab.import_llm_embeddings)
import_llm_logs = _verb(Lab.import_llm_logs)
import_otel = _verb(Lab.import_otel)
import_rows = _verb(Lab.import_rows)
judge = _verb(Lab.judge)
judgments_df = _verb(Lab.judgments_df)
latency_df = _verb(Lab.latency_df)
ledger_df = _verb(Lab.ledger_df)
list_contexts = _verb(Lab.list_contexts)
model_performance_df = _verb(Lab.model_performance_df)
pin_context = _verb(Lab.pin_context)
reconcile_df = _verb(Lab.reconcile_df)
record_decision = _verb(Lab.record_decision)
record_outcome = _verb(Lab.record_outcome)
record_usage = _verb(Lab.record_usage)
record_usages = _verb(Lab.record_usages)
replay = _verb(Lab.replay)
reprice_usage = _verb(Lab.reprice_usage)
revert = _verb(Lab.revert)
route = _verb(Lab.route)
routing_report = _verb(Lab.routing_report)
search = _verb(Lab.search)
search_df = _verb(Lab.search_df)
search_many = _verb(Lab.search_many)
searches_df = _verb(Lab.searches_df)
setting = _verb(Lab.setting)
settings_df = _verb(Lab.settings_df)
shown_df = _verb(Lab.shown_df)
stats = _verb(Lab.stats)
storage_df = _verb(Lab.storage_df)
store_context = _verb(Lab.store_context)
store_contexts = _verb(Lab.store_contexts)
track_usage = _verb(Lab.track_usage)
transaction = _verb(Lab.transaction)
tune_search = _verb(Lab.tune_search)
tune_threshold = _verb(Lab.tune_threshold)
unpin_context = _verb(Lab.unpin_context)
unpriced_df = _verb(Lab.unpriced_df)
update_context = _verb(Lab.update_context)
usage_df = _verb(Lab.usage_df)
use_prices = _verb(Lab.use_prices)

__all__ = [
    "ConfigurationError",
    "Context",
    "ContextExists",
    "ContextNotFound",
    "DamagedContextWarning",
    "DamagedLab",
    "DecisionNotFound",
    "DegradedSearchWarning",
    "EmbeddingModelWarning",
    "InvalidValue",
    "InvalidVector",
    "Lab",
    "LabBusy",
    "LabClosed",
    "LabConfig",
    "LabError",
    "LabForked",
    "LabMoved",
    "LabNotFound",
    "LabWarning",
    "LeakWarning",
    "ModelUnavailable",
    "NewerSchema",
    "NotALab",
    "NotFound",
    "PendingEmbeddingWarning",
    "ReadOnlyLab",
    "Recommendation",
    "ReplacedLabWarning",
    "Report",
    "SearchHit",
    "SettingMismatchWarning",
    "StatementTimeout",
    "StorageError",
    "StorageFull",
    "UnrecordedUsageWarning",
    "UnusablePath",
    "accesses_df",
    "acting_as",
    "aio",
    "alias_context",
    "apply",
    "backup",
    "benchmark",
    "build_vector_index",
    "check",
    "check_file",
    "cleanup",
    "compare_labs",
    "compare_models",
    "config_advice_df",
    "config_df",
    "connection",
    "contexts_df",
    "copy_lab",
    "cost_df",
    "current_lab",
    "decision_contexts_df",
    "decisions_df",
    "delete_context",
    "drift_df",
    "embed_contexts",
    "evaluate_search",
    "export",
    "fit_router",
    "get_context",
    "get_migration_status",
    "health",
    "import_billing",
    "import_claude_code",
    "import_codex",
    "import_export",
    "import_litellm",
    "import_llm_embeddings",
    "import_llm_logs",
    "import_otel",
    "import_rows",
    "judge",
    "judgments_df",
    "latency_df",
    "ledger_df",
    "list_contexts",
    "mockdata",
    "model_performance_df",
    "open",
    "pin_context",
    "plots",
    "reconcile_df",
    "record_decision",
    "record_outcome",
    "record_usage",
    "record_usages",
    "repair",
    "replay",
    "reprice_usage",
    "revert",
    "route",
    "routing_report",
    "run_database_tests",
    "run_migrations",
    "search",
    "search_df",
    "search_many",
    "searches_df",
    "setting",
    "settings_df",
    "setup_database",
    "setup_database_from_config",
    "shown_df",
    "stats",
    "storage_df",
    "store_context",
    "store_contexts",
    "track_usage",
    "transaction",
    "tune_search",
    "tune_threshold",
    "unpin_context",
    "unpriced_df",
    "update_context",
    "usage_df",
    "use",
    "use_prices",
    "validate_config",
]
