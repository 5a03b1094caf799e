"""A bare loop around aiohttp, live: what there is to gain without a provider's SDK."""

import asyncio

import aiohttp
import outset


async def main() -> None:
    headers = {"authorization": f"Bearer {outset.KEY}"}
    connector = aiohttp.TCPConnector(limit=outset.AT_ONCE)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as client:

        async def one(prompt: str) -> bool:
            body = {"model": outset.MODEL, "messages": [{"role": "user", "content": prompt}]}
            async with client.post(f"{outset.URL}/chat/completions", json=body, raise_for_status=True) as answer:
                return bool((await answer.json())["choices"][0]["message"]["content"])

        outset.tell(sum(await asyncio.gather(*map(one, outset.prompts()))))


asyncio.run(main())
