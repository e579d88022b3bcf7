"""An agent that searches before it answers, chooses a model, accounts for it, and learns.

    python examples/agent_loop.py [--db agent.db] [--rounds 30]

No service is called: `ask` stands for a provider's client and says what such an answer says. Everything else is as in
earnest. Run it twice: the second time the agent finds what it learned.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

import autom8_lab as al

HANDBOOK = {
    "refund-limit": "Refunds above 500 EUR need a second approval.",
    "delivery": "Parcels within the EU arrive in two to four days.",
    "night-shift": "Outside office hours the pager goes to the platform team.",
}
QUESTIONS = [
    "Who has to agree to pay 800 EUR back?",
    "When will my parcel get to Lisbon?",
    "Whom do I call when the site is down at 3 am?",
    "May I return worn shoes?",
]
MODELS = {"gpt-4o-mini": 0.8, "gpt-4o": 0.95}  # how well each answers, which the agent does not know
EXPLORE = 0.2


def ask(model: str, prompt: str, draw: random.Random) -> dict[str, object]:
    """Stand for a provider: an answer with its usage, right as often as the model is good."""
    right = draw.random() < MODELS[model]
    return {"text": "…", "input_tokens": len(prompt) // 4, "output_tokens": draw.randint(20, 80), "right": right}


def choose(complexity: float, draw: random.Random) -> tuple[str, dict[str, float], float]:
    """Choose a model: the small one for simple questions, now and then the other; with the choice's probability."""
    scores = {"gpt-4o-mini": 1 - complexity, "gpt-4o": complexity}
    best = max(scores, key=lambda name: scores[name])
    chosen = draw.choice(list(MODELS)) if draw.random() < EXPLORE else best
    propensity = EXPLORE / len(MODELS) + (1 - EXPLORE if chosen == best else 0)
    return chosen, scores, propensity


def answer(lab: al.Lab, question: str, draw: random.Random) -> bool:
    """Answer one question, and leave a trace of what was known, decided, spent and how it went."""
    hits = lab.search(question, k=2, min_similarity=0.3)
    complexity = min(1.0, len(question) / 60)
    model, scores, propensity = choose(complexity, draw)
    decision = lab.record_decision(
        "route",
        chosen=model,
        candidates=scores,
        propensity=propensity,
        policy="length",
        policy_version="1",
        complexity_score=complexity,
        context_ids=[hit.context.id for hit in hits],
    )
    prompt = "\n".join([*(hit.chunk for hit in hits), question])
    with lab.track_usage(model, provider="openai", decision_id=decision) as call:
        said = ask(model, prompt, draw)
        call.input_tokens, call.output_tokens = said["input_tokens"], said["output_tokens"]
    right = bool(said["right"])
    lab.record_outcome(decision, success=right, quality_score=float(right))
    if right and not hits:
        lab.store_context(f"Asked and answered: {question}", topic="learned", source="agent", ttl="90d")
    return right


def run(path: str, rounds: int, *, seed: int = 0, write: Callable[[str], object] = print) -> None:
    """Let the agent work, and print what its account says."""
    draw = random.Random(seed)
    with al.open(path, agent="support") as lab:
        rows = [{"context_id": name, "content": text, "topic": "handbook"} for name, text in HANDBOOK.items()]
        lab.store_contexts(rows, if_exists="skip")
        right = sum(answer(lab, draw.choice(QUESTIONS), draw) for _ in range(rounds))
        write(f"{right} of {rounds} answers were right; the lab keeps {lab.stats()['contexts']} contexts\n")
        columns = ["model", "calls", "success_rate", "success_low", "success_high", "cost_per_call_usd"]
        write(lab.model_performance_df()[columns].round(6).to_string(index=False))
        shown = lab.shown_df(by=["context_id", "topic"])[["context_id", "topic", "times"]]
        write(f"\nWhat the agent was shown:\n{shown.to_string(index=False)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--db", default="agent.db")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    run(options.db, options.rounds)
