"""A bare loop around AsyncOpenAI, live."""

import asyncio

import outset
from openai import AsyncOpenAI


async def main() -> None:
    gate = asyncio.Semaphore(outset.AT_ONCE)
    async with AsyncOpenAI(max_retries=0) as client:

        async def one(prompt: str) -> bool:
            async with gate:
                answer = await client.chat.completions.create(
                    model=outset.MODEL, messages=[{"role": "user", "content": prompt}]
                )
            return bool(answer.choices[0].message.content)

        outset.tell(sum(await asyncio.gather(*map(one, outset.prompts()))))


asyncio.run(main())
