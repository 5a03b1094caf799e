"""bespokelabs-curator, in batches and live.

Set: a look every second instead of every minute (the least it takes), one batch for all rows, limits a minute too high
to be met, and our number of calls at once. Its tokenizer's words come with litellm, instead of from the network. Its
folder is its cache: the same script with the same folder goes on.
"""

import os
from importlib.util import find_spec

import outset
from bespokelabs import curator
from openai.resources.files import AsyncFiles

MANY = 1_000_000_000
PARAMS = {
    "batch": {"batch_size": 50_000, "batch_check_interval": 1},
    "live": {
        "max_requests_per_minute": MANY,
        "max_tokens_per_minute": MANY,
        "max_concurrent_requests": outset.AT_ONCE,
    },
}


class Rows(curator.LLM):
    """A row is a prompt, and its answer a text."""

    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"text": response}


if __name__ == "__main__":
    litellm = find_spec("litellm").submodule_search_locations[0]
    os.environ["TIKTOKEN_CACHE_DIR"] = f"{litellm}/litellm_core_utils/tokenizers"
    outset.named(AsyncFiles, later=True)
    params = {"base_url": outset.URL} | PARAMS[outset.LANE]
    rows = Rows(model_name=outset.MODEL, backend="openai", batch=outset.LANE == "batch", backend_params=params)
    found = rows([{"prompt": prompt} for prompt in outset.prompts()], working_dir=outset.FOLDER).dataset
    outset.tell(sum(bool(text) for text in found["text"]))
