"""What calls of models, searches and evaluations are called in traces, and the values found under those names.

OpenTelemetry's GenAI conventions, current and deprecated (https://opentelemetry.io/docs/specs/semconv/gen-ai/),
OpenInference (https://github.com/Arize-ai/openinference) and OpenLLMetry (https://github.com/traceloop/openllmetry). Of
several names the first that is there holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPERATION = ("gen_ai.operation.name", "llm.request.type", "openinference.span.kind")
# How those name what a call of a model is; other operations (agents, tools, workflows) contain calls and are none.
CALLS = {
    "chat": "chat",
    "llm": "chat",
    "generate_content": "generate_content",
    "text_completion": "text_completion",
    "completion": "text_completion",
    "embeddings": "embeddings",
    "embedding": "embeddings",
    "rerank": "rerank",
    "reranker": "rerank",
}
SEARCHES = frozenset({"retrieval", "retriever", "search_memory"})
# OpenLLMetry's spans of vector stores: their searches, among other work.
VECTOR_STORES = frozenset({"chroma", "lancedb", "marqo", "milvus", "pinecone", "qdrant", "weaviate"})
STORE_SEARCHES = frozenset({"query", "search"})
STORE_RESULTS = frozenset({"db.query.result", "db.search.result"})  # events, whose attributes begin with their names

REQUEST_MODEL = ("gen_ai.request.model", "llm.request.model")
MODEL = (
    "gen_ai.response.model",
    "llm.response.model",
    *REQUEST_MODEL,
    "llm.model_name",
    "embedding.model_name",
    "reranker.model_name",
)
PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor")
AGENT = ("gen_ai.agent.name", "agent.name", "service.name")
CONVERSATION = ("gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id")
USER = ("user.id", "enduser.id", "traceloop.association.properties.user_id")
# What is kept in a call's metadata.
LABELS = {
    "conversation": CONVERSATION,
    "user": USER,
    "service": ("service.name",),
    "workflow": ("gen_ai.workflow.name",),
    "response_id": ("gen_ai.response.id",),
}

TOKENS = {
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.usage.prompt_tokens",
        "llm.token_count.prompt",
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
        "llm.token_count.completion",
    ),
    "cache_read_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "llm.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "llm.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
}
TTFT_SECONDS = ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token")
FIRST_TOKEN_EVENTS = frozenset({"First Token Stream Event", "gen_ai.choice.first_token"})
COST = ("gen_ai.usage.cost.amount", "gen_ai.usage.cost", "llm.cost.total", "llm.usage.cost")
CURRENCY = ("gen_ai.usage.cost.currency",)
ERROR = ("error.type", "exception.type")

EVALUATION = "gen_ai.evaluation.result"
EVALUATION_NAME, EVALUATION_SCORE = "gen_ai.evaluation.name", "gen_ai.evaluation.score.value"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
PASSED = {"pass": 1.0, "passed": 1.0, "fail": 0.0, "failed": 0.0}

PROMPT = ("gen_ai.input.messages", "gen_ai.prompt", "input.value")
RESPONSE = ("gen_ai.output.messages", "gen_ai.completion", "output.value")
# Messages numbered from 0, of which a prompt's last and an answer's first are kept.
PROMPT_PARTS = ("gen_ai.prompt.{}.content", "llm.prompts.{}.content", "llm.input_messages.{}.message.content")
RESPONSE_PARTS = ("gen_ai.completion.{}.content", "llm.output_messages.{}.message.content")

QUERY = (
    "gen_ai.retrieval.query.text",
    "gen_ai.retrieval.query",
    "input.value",
    "db.query.text",
    "db.marqo.search.query",
)
DATA_SOURCE = ("gen_ai.data_source.id", "db.collection.name", "db.system.name", "db.system")
TOP_K = (
    "gen_ai.request.top_k",
    "retrieval.top_k",
    "db.vector.query.top_k",
    "db.chroma.query.n_results",
    "db.milvus.search.limit",
    "pinecone.query.top_k",
)
DOCUMENTS = "gen_ai.retrieval.documents"
DOCUMENT = "retrieval.documents.{}.document.{}"


# Every name of a call with the fields that it may tell, and how many names are asked before it.
FIELDS: dict[str, tuple[str, ...]] = {
    "request_model": REQUEST_MODEL,
    "model": MODEL,
    "provider": PROVIDER,
    "agent": AGENT,
    **LABELS,
    **TOKENS,
    "ttft_seconds": TTFT_SECONDS,
    "cost": COST,
    "currency": CURRENCY,
    "error": ERROR,
}
FIELDS_OF: dict[str, list[tuple[str, int]]] = {}
for _field, _names in FIELDS.items():
    for _rank, _name in enumerate(_names):
        FIELDS_OF.setdefault(_name, []).append((_field, _rank))


def fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the attributes of a call tell, by field.

    >>> fields({"gen_ai.usage.prompt_tokens": 9, "gen_ai.usage.input_tokens": 7, "llm.model_name": "gpt-4o", "other": 1})
    {'input_tokens': 7, 'model': 'gpt-4o'}
    """
    found: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for name, told in attributes.items():
        if name in FIELDS_OF and told is not None and told != "":
            for field, rank in FIELDS_OF[name]:
                if field not in found or rank < ranks[field]:
                    found[field], ranks[field] = told, rank
    return found


def value(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the value under the first of these names that has one."""
    for name in names:
        found = attributes.get(name)
        if found is not None and found != "":
            return found
    return None


def operation(attributes: Mapping[str, Any]) -> str | None:
    """Return what a span says that it does, in lower case; None for what is no work of a model.

    >>> operation({"openinference.span.kind": "LLM"}), operation({"gen_ai.request.model": "gpt-4o"}), operation({})
    ('llm', 'chat', None)
    """
    for name in OPERATION:
        found = attributes.get(name)
        if isinstance(found, str) and found.strip():
            return found.strip().lower()
    if attributes.get("traceloop.span.kind") is not None:
        return str(attributes["traceloop.span.kind"]).lower()
    if attributes.get("db.system") in VECTOR_STORES and attributes.get("db.operation") in STORE_SEARCHES:
        return "retrieval"
    # Instrumentation older than the operation's name.
    return "chat" if value(attributes, MODEL) is not None else None
