"""Checks: contexts are stored, read, changed, found and removed."""

from __future__ import annotations

from datetime import timedelta

from ..errors import ContextNotFound
from .workbench import Workbench, check, expect, expect_error

TOPIC = "self-test"


@check("contexts")
def a_context_is_stored_read_changed_and_deleted(bench: Workbench) -> None:
    """Create, read, update, delete."""
    lab = bench.lab
    metadata = {"team": "core", "sizes": [1, 2.5, None], "ü": "日本"}
    stored = lab.store_context(
        "Zebrafish answer first.", context_id="self-test/a", topic=TOPIC, priority=7, metadata=metadata, ttl="1d"
    )
    context = lab.get_context(stored)
    expect(context.content == "Zebrafish answer first.", f"the text came back as {context.content!r}")
    expect((context.topic, context.priority) == (TOPIC, 7), "topic or priority came back changed")
    expect(context.metadata == metadata, f"the metadata came back as {context.metadata!r}")
    expect(context.expires_at and context.expires_at - context.created_at <= timedelta(days=1), "the expiry is lost")
    changed = lab.update_context(stored, content="Zebrafish answer last.", priority=8)
    expect((changed.content, changed.priority) == ("Zebrafish answer last.", 8), "the change was not kept")
    lab.delete_context(stored)
    with expect_error(ContextNotFound, "reading a deleted context"):
        lab.get_context(stored)


@check("contexts")
def a_batch_is_stored_and_a_text_is_kept_once(bench: Workbench) -> None:
    """Batch store and deduplication."""
    lab = bench.lab
    rows = [{"content": f"Batch text number {n}.", "context_id": f"self-test/b{n}", "topic": TOPIC} for n in range(50)]
    outcomes = lab.store_contexts([*rows, {**rows[0], "context_id": "self-test/twin"}], progress=False)
    counts = outcomes["outcome"].value_counts().to_dict()
    expect(counts == {"stored": 50, "duplicate": 1}, f"50 new texts and a repeated one gave {counts}")
    expect(lab.get_context("self-test/twin").id == "self-test/b0", "the second id does not lead to the first text")


@check("contexts")
def pinned_contexts_outlive_cleanup_and_expired_ones_do_not(bench: Workbench) -> None:
    """Pinning, expiry and cleanup."""
    with bench.fresh("cleanup") as lab:
        lab.store_context("Gone.", context_id="gone", expires_at="2020-01-01T00:00:00+00:00")
        lab.store_context("Kept.", context_id="kept", expires_at="2020-01-01T00:00:00+00:00", pinned=True)
        removed = lab.cleanup(dry_run=False)["context_id"].tolist()
        expect(removed == ["gone"], f"cleanup removed {removed}")
        left = [item.id for item in lab.list_contexts(include_expired=True)]
        expect(left == ["kept"], f"after cleanup the lab holds {left}")


@check("contexts")
def a_newer_fact_takes_the_place_of_an_older_one(bench: Workbench) -> None:
    """Superseding."""
    lab = bench.lab
    lab.store_context("Quokkas sleep at noon.", context_id="self-test/old", topic=TOPIC)
    lab.store_context("Quokkas sleep at dusk.", context_id="self-test/new", topic=TOPIC, supersedes="self-test/old")
    found = [hit.context.id for hit in lab.search("quokkas", method="text", topic=TOPIC)]
    expect(found == ["self-test/new"], f"a search found {found}")
    expect(lab.get_context("self-test/old").superseded_by == "self-test/new", "the older fact does not name the newer")


@check("text search")
def texts_are_found_by_their_words_and_names(bench: Workbench) -> None:
    """Full-text search."""
    lab = bench.lab
    lab.store_context("The axolotl regrows limbs (ERR_PAY_4021).", context_id="self-test/axolotl", topic=TOPIC)
    for query in ("axolotl", "what regrows a limb?", "ERR_PAY_4021", 'AXOLOTL"; DROP TABLE *'):
        found = [hit.context.id for hit in lab.search(query, method="text", topic=TOPIC, k=1)]
        expect(found == ["self-test/axolotl"], f"{query!r} found {found}")
    expect(lab.search("", method="text", topic=TOPIC) == [], "an empty query found something")


@check("text search")
def the_index_follows_every_change(bench: Workbench) -> None:
    """The full-text triggers."""
    lab = bench.lab

    def found(word: str) -> list[str]:
        return [hit.context.id for hit in lab.search(word, method="text", topic=TOPIC)]

    lab.store_context("Narwhals sing.", context_id="self-test/n", topic=TOPIC)
    expect(found("narwhals") == ["self-test/n"], "a stored word is not found")
    lab.update_context("self-test/n", content="Belugas sing.")
    expect(found("narwhals") == [], "a word that was replaced is still found")
    expect(found("belugas") == ["self-test/n"], "the word that replaced it is not found")
    lab.delete_context("self-test/n")
    expect(found("belugas") == [], "a word of a deleted text is still found")


@check("transparency")
def it_is_known_what_was_shown_to_whom(bench: Workbench) -> None:
    """The access log."""
    from ..agents import acting_as

    with bench.fresh("shown", access_log=True) as lab:
        lab.store_context("Pangolins curl up.", context_id="p", topic=TOPIC)
        with acting_as("self-test"):
            lab.search("pangolins", method="text")
            lab.get_context("p")
        shown = lab.shown_df("p")
        expect(shown["agent"].tolist() == ["self-test"], f"shown to {shown['agent'].tolist()}")
        counts = (int(shown["searches"].sum()), int(shown["reads"].sum()))
        expect(counts == (1, 1), f"one search and one read are {counts} in the log")
