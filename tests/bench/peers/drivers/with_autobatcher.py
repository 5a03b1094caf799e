"""autobatcher, in batches.

Set: the window of 24 h, which alone means the Batch API, one batch for all rows, and a look every half second instead
of every five. It keeps nothing on disk: begun again, it asks everything again.
"""

import asyncio

import outset
from autobatcher import BatchOpenAI


async def main() -> None:
    prompts = outset.prompts()
    client = BatchOpenAI(
        api_key=outset.KEY,
        base_url=outset.URL,
        batch_size=len(prompts),
        poll_interval_seconds=0.5,
        completion_window="24h",
    )
    create = client.chat.completions.create
    asked = [create(model=outset.MODEL, messages=[{"role": "user", "content": prompt}]) for prompt in prompts]
    found = await asyncio.gather(*asked, return_exceptions=True)
    outset.tell(sum(not isinstance(one, BaseException) and bool(one.choices[0].message.content) for one in found))
    await client.close()


asyncio.run(main())
