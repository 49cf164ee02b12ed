"""What runs in the peer's process: a loop around its public interface. Imports nothing of ours."""

from __future__ import annotations

import hashlib


def reward(text: str) -> float:
    """How many of a simulated solution's steps say that they are right, and a little noise; 0..1.

    >>> reward("step 1: ok ...") > reward("step 1: slip 1 ...")
    True
    """
    noise = hashlib.blake2b(text.strip().encode(), digest_size=4).digest()
    return float((text.count(": ok ") + int.from_bytes(noise) / 2**32) / (text.count("step ") + 1))


CHILD = """
import asyncio, json, logging, os, sys, time, warnings
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever prints must not meet the protocol
warnings.simplefilter("ignore")
logging.disable(logging.INFO)
from its_hub.api import AbstractProcessRewardModel
from its_hub.core.algorithms.beam_search import BeamSearch
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.algorithms.self_consistency import SelfConsistency
from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel
from its_hub.core.lms.step_generation import StepGeneration
from its_hub.core.orchestrator import LMOrchestrator

class Reward(AbstractProcessRewardModel):
    def __init__(self, seconds):
        self.seconds = seconds
    def score(self, prompt, steps):
        time.sleep(self.seconds)
        return [reward(text) for text in steps]
    async def ascore(self, prompt, steps):
        await asyncio.sleep(self.seconds)
        return [reward(text) for text in steps]

def answer(text):
    return text.rpartition("answer: ")[2].strip()

def algorithm(job):
    if job["search"] == "vote":
        return SelfConsistency(answer, orchestrator=LMOrchestrator(job["slots"]))
    # The answer ends a path, long before max_steps does.
    steps = StepGeneration(99, job["separator"], job["closing"], temperature=1.0)
    if job["search"] == "beam":
        return BeamSearch(steps, Reward(job["score_s"]), beam_width=job["keep"])
    return ParticleFiltering(steps, Reward(job["score_s"]), resampling_method="systematic")

async def gathered(search, lm, job):
    try:
        return await asyncio.gather(*(
            search.ainfer(lm, prompt, job["paths"], return_response_only=False)
            for prompt in job["prompts"]
        ))
    finally:
        await lm.close_session()

def run(job):
    lm = OpenAICompatibleLanguageModel(job["endpoint"], "none", job["model"], temperature=1.0)
    search = algorithm(job)
    begun = time.perf_counter()
    if job["together"]:
        results = asyncio.run(gathered(search, lm, job))
    else:
        results = [search.infer(lm, prompt, job["paths"], return_response_only=False)
                   for prompt in job["prompts"]]
    seconds = time.perf_counter() - begun
    usages = [getattr(result, "usage", None) for result in results]
    told = all(usage is not None for usage in usages)
    return {
        "seconds": seconds,
        "texts": [result.the_one["content"] for result in results],
        "reported": sum(usage.completion_tokens for usage in usages) if told else None,
        "prompt": sum(usage.prompt_tokens for usage in usages) if told else None,
    }

for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), file=out, flush=True)
"""
"""Reads jobs as JSON lines and answers each with seconds, texts and usage; needs ``reward``."""
