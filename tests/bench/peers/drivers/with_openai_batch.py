"""openai-batch, in batches, by its library over a file that is there already, as its command does it.

Set: a look every half second instead of every minute. Adding rows one by one is not used: the file that it then writes
itself is closed when it is to be read. It keeps nothing but the id that it prints.
"""

import outset
from openai.resources.files import Files
from openai_batch import Batch
from openai_batch.providers import Provider

outset.named(Files, later=False)
provider = Provider(name="sandbox", base_url=outset.URL, api_key=outset.KEY)
with Batch(outset.FILE, output_file=f"{outset.FOLDER}/out.jsonl", provider=provider) as batch:
    _, output, _ = batch.submit_wait_download(interval=0.5)
with open(output) as lines:
    outset.tell(sum('"content"' in line for line in lines))
