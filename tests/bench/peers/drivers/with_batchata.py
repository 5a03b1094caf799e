"""batchata, in batches.

Set: one batch for all rows, a state file to go on from, no copies of the raw files. Its look every five seconds is no
setting: the method that says so is replaced, and says one.
"""

import outset
from batchata import Batch
from batchata.providers.openai.openai_provider import OpenAIProvider

OpenAIProvider.get_polling_interval = lambda self: 1.0

prompts = outset.prompts()
batch = Batch(f"{outset.FOLDER}/results", items_per_batch=len(prompts), raw_files=False)
batch.set_state(f"{outset.FOLDER}/state.json", reuse_state=True).set_verbosity("error")
batch.set_default_params(model=outset.MODEL)
for prompt in prompts:
    batch.add_job(messages=[{"role": "user", "content": prompt}])
outset.tell(len(batch.run().results()["completed"]))
