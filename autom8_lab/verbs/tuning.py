"""Verbs that judge, evaluate, recommend, apply and watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from .. import applied
from .. import judgments as kept_judgments
from ..errors import InvalidValue, did_you_mean
from ..frames import frame
from ..recommendation import Recommendation
from ..tuning.watch import MEASURES, DriftFilters
from ..validation import positive_integer
from .parts import Parts

if TYPE_CHECKING:
    import pandas as pd

    from ..tuning.evaluation import Evaluation

METHODS = ("hybrid", "text", "semantic")


class TuningVerbs(Parts):
    """Tune: settings from evidence."""

    def judge(
        self,
        query: Any,
        *,
        grades: Any = None,
        queries: Any = None,
        methods: Any = METHODS,
        k: int = 10,
        seed: int = 0,
        query_id: str | None = None,
    ) -> pd.DataFrame:
        """Return what several methods find for a query, to be judged; or keep judgments in the file.

        `judge("query")` gives the k best results of each method in one frame, shuffled (by `seed`) and without saying
        which method found what, so that nobody is favoured; `grade` holds what is kept already. Fill in grades
        (0: not relevant; 1, 2, 3: related, helpful, answers it) and keep them with `judge(frame)`, or give them as
        `judge("query", grades={"context_id": 3})`; None removes one. `judge("query", grades={})` keeps that nothing
        answers the query. Judgments made elsewhere are kept with `judge(judgments, queries=…)`, in any form that
        `evaluate_search` takes. Returns query_id, query, context_id, topic, content, grade. Raises `InvalidValue`.

        >>> context_id = lab.store_context("Refunds above 500 EUR need a second approval.", context_id="refunds")
        >>> lab.judge("who approves refunds?", grades={"refunds": 3})[["context_id", "grade"]]
          context_id  grade
        0    refunds      3
        """
        return self._tuning.judge(
            query, grades=grades, queries=queries, methods=methods, k=k, seed=seed, query_id=query_id
        )

    def judgments_df(self) -> pd.DataFrame:
        """Return the judgments that are kept, by query, best first; what nothing answers has a row without context."""
        return frame(self._tuning.judgment_rows(), kept_judgments.COLUMNS)

    def evaluate_search(
        self,
        queries: Any = None,
        *,
        judgments: Any = None,
        methods: Any = METHODS,
        k: int = 10,
        depth: int = 100,
    ) -> Evaluation:
        """Judge searches: nDCG, recall and precision at k, MRR and MAP, overall and per query, with 95 % intervals.

        `queries` are texts by id (dict, frame, list); `judgments` a dict {query_id: {context_id: grade}}, a frame or
        the path of a TREC file; without both, those that `judge` kept. `methods` are names of methods, or a dict of
        search options by a name of your own, such as {"more text": {"text_weight": 0.7}, "no cutoff":
        {"min_similarity": -1}}; a frame (query_id, context_id, score) in place of options judges the results of another
        system. MRR and MAP look at the `depth` best results. The measures are trec_eval's. Nothing is written to the
        access log. Raises `InvalidValue`, also where a judged context is not in the lab.
        """
        k, depth = (positive_integer(value, name, at_most=10_000) for value, name in ((k, "k"), (depth, "depth")))
        return self._tuning.evaluate(queries, judgments, methods=methods, k=k, depth=depth)

    def tune_search(
        self,
        queries: Any = None,
        *,
        judgments: Any = None,
        what: Literal["ranking", "cutoff", "chunks"] = "ranking",
        measure: str = "nDCG",
        k: int = 10,
        chunk_tokens: Sequence[int] = (),
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Recommendation:
        """Recommend how to search, from judged queries (see `evaluate_search`), or keep what is in force.

        "ranking" compares some hundred settings: the text ranker's weight, the fusion, how deep both rankings are read,
        and, where contexts have topics or summaries, how much words there count. Each query is searched once and its
        candidates joined anew for every setting. "cutoff" fits how likely a hybrid result is relevant and finds from
        which probability on results are worth showing, so that nothing may be the answer; it learns most from queries
        that nothing answers, which `judge("query", grades={})` keeps. "chunks" embeds all texts anew, in memory, for
        each of `chunk_tokens`, which takes as long as storing them did.

        Recommended is only what gains in `measure` ("nDCG", "recall", "precision", "MRR", "MAP", at k) out of fold, and
        whose interval, which holds for all settings tried at once, is above zero. The table "settings" (or "cutoffs",
        "reliability") has what was tried. Raises `InvalidValue`.
        """
        k = positive_integer(k, "k", at_most=1_000)
        if what not in ("ranking", "cutoff", "chunks"):
            raise InvalidValue(f"what={what!r}{did_you_mean(str(what), ('ranking', 'cutoff', 'chunks'))}")
        if (what == "chunks") != bool(chunk_tokens):
            raise InvalidValue(
                "chunk sizes are compared with what='chunks', chunk_tokens=[128, 250]: give both or neither"
            )
        options: dict[str, Any] = {"measure": measure, "k": k, "confidence": confidence, "seed": seed}
        if what == "chunks":
            return self._tune_chunks(queries, judgments, chunk_tokens, **options)
        return self._tuning.search_settings(queries, judgments, what=what, **options)

    def _tune_chunks(self, queries: Any, judgments: Any, sizes: Sequence[int], **options: Any) -> Recommendation:
        from ..tuning.chunks import compare_chunks, copy_contexts

        def in_memory(chunking: dict[str, int]) -> Any:
            settings = {**chunking, "db_path": ":memory:", "access_log": False, "read_only": False}
            encoder = self._index.serving_encoder()
            trial = type(self)(self.config.model_copy(update=settings), encoder=encoder, clock=self._clock)
            copy_contexts(self._storage, trial._storage)
            trial.embed_contexts(progress=False)  # type: ignore[attr-defined]
            return trial

        active = self._index.active_set()
        now = {name: getattr(active or self.config, name) for name in ("chunk_tokens", "chunk_overlap_tokens")}
        return compare_chunks(self._tuning, in_memory, now, sizes, queries, judgments, **options)

    def tune_threshold(
        self,
        data: Any = None,
        *,
        judgments: Any = None,
        setting: str = "similarity_threshold",
        max_false_hit_rate: float | None = None,
        objective: str | None = None,
        false_hit_cost: float | None = None,
        miss_cost: float | None = None,
        by: str | None = None,
        confidence: float = 0.95,
        held_out: float = 0.5,
        seed: int = 0,
    ) -> Recommendation:
        """Recommend from which score on a result, duplicate or cached answer is to be used, or say why not.

        `data` are scores and labels (a frame with score and label, or two lists), pairs of texts (a frame with text_a,
        text_b and label, or triples), or queries with their `judgments` (without both, the kept ones): then the score
        is the similarity of the most similar context, and the label whether it is relevant.

        With `max_false_hit_rate` it is the lowest threshold of which held-out labels show, with `confidence`, that at
        most this share of hits is wrong; where the labels cannot show that, the verdict is "cannot tell yet" and says
        about how many more are needed. Else it is the threshold with the best `objective` ("f1", "f0.5", "f2" …) or,
        with `false_hit_cost` and `miss_cost`, the lowest cost per request, recommended only where it can be told from
        the value in force. `setting` names what is tuned: "similarity_threshold" is what searches use, any other name
        is yours to read with `setting(name)`.

        `tables` of the recommendation: "curve" (every distinct score with exact bounds), "errors" (the rows it gets
        wrong), "calibration" and "reliability" (Platt and isotonic, out of fold), with `by`, a column of the labels,
        "slices". It is bound to the lab's vectors. Raises `InvalidValue` for scores that are no finite numbers.

        >>> scores, labels = [0.9, 0.8, 0.7, 0.4, 0.3] * 20, [True, True, True, False, False] * 20
        >>> lab.tune_threshold((scores, labels), setting="cache_threshold").settings
        {'cache_threshold': 0.7}
        """
        from ..tuning.thresholds import goal_of

        goal = goal_of(
            objective=objective,
            max_false_hit_rate=max_false_hit_rate,
            false_hit_cost=false_hit_cost,
            miss_cost=miss_cost,
            confidence=confidence,
            held_out=held_out,
            seed=seed,
        )
        return self._tuning.threshold(data, goal, judgments=judgments, setting=setting, by=by)

    def apply(self, recommendation: Recommendation) -> pd.DataFrame:
        """Put a recommendation's settings in force, keep it with its evidence, and return the new rows of `settings_df`.

        Later calls use them, also those of labs that are open elsewhere. What holds, the strongest first: an argument
        of the call, the setting applied last, the configuration. Raises `InvalidValue` for the verdicts "keep" and
        "cannot tell yet"; warns (`SettingMismatchWarning`) where it is for other vectors than the lab's.
        """
        return self._log_of(self._applied.apply(recommendation))

    def revert(self, setting: str | None = None) -> pd.DataFrame:
        """Take back the last application (for a name: of that setting), and return the new rows of `settings_df`.

        What was in force before is in force again; reverting twice goes back two steps. Raises `NotFound` where
        nothing is applied.
        """
        return self._log_of(self._applied.revert(setting))

    def setting(self, name: str, *, default: Any = None) -> Any:
        """Return the value of a setting that is in force: applied, else configured, else `default`.

        Warns (`SettingMismatchWarning`) where it was chosen for other vectors than the lab's. Raises `NotFound` for a
        name that is neither applied nor configured when there is no default.

        >>> lab.setting("text_weight"), lab.setting("cache_threshold", default=0.95)
        (0.5, 0.95)
        """
        return self._applied.value(name, default=default)

    def drift_df(
        self,
        since: Any = "7d",
        *,
        reference: Any = None,
        measures: Sequence[str] = MEASURES,
        by: str | None = None,
        **filters: Unpack[DriftFilters],
    ) -> pd.DataFrame:
        """Return what has moved since a time, against the time before it (from `reference` on): a row per measure.

        The measures: "quality", "success_rate", "latency_ms" and "cost_usd" of calls, for each value of `by` ("model",
        "operation", "metadata.team" …), and "similarity", that of the most similar context of each search (left out
        where `filters` choose calls). Means and medians of both periods, the change with its interval, how far the
        distributions are apart, when the series changed, with an interval, and a verdict: "moved", "no change seen" or
        "cannot tell yet". The p-value holds for all rows together. Source: Pettitt 1979, see `tuning/drift.py`.
        """
        return self._watch.drift(since, reference=reference, measures=measures, by=by, filters=filters)

    def settings_df(self) -> pd.DataFrame:
        """Return every application and reversal of a setting, the newest first, with its evidence; see `apply`."""
        return frame(self._applied.rows(), applied.COLUMNS)

    def _log_of(self, entries: list[dict[str, Any]]) -> pd.DataFrame:
        keys = {entry["settings_key"] for entry in entries}
        return frame([row for row in self._applied.rows() if row["settings_key"] in keys], applied.COLUMNS)
