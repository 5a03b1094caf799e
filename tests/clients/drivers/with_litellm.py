"""LiteLLM's SDK: text, stream, tools, errors, batches."""

import json
import os
import time

import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True
ASK = {"model": f"openai/{os.environ['MODEL']}", "api_base": os.environ["OPENAI_BASE_URL"],
       "api_key": os.environ["OPENAI_API_KEY"], "num_retries": 0, "max_retries": 0}  # fmt: skip
WORDS = [{"role": "user", "content": "Write a long essay about rivers."}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
assert litellm.completion(**ASK, messages=WORDS).choices[0].message.content
print("text")
chunks = list(litellm.completion(**ASK, messages=WORDS, stream=True))
assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) > 5
print("stream")
called = litellm.completion(**ASK, messages=WORDS, tools=[TOOL], tool_choice="required").choices[0]
assert called.message.tool_calls[0].function.name == "get_weather"
print("tools")
try:
    litellm.completion(**ASK, messages=WORDS, max_tokens=0)
except litellm.BadRequestError:
    print("errors")
row = {"custom_id": "r", "method": "POST", "url": "/v1/chat/completions",
       "body": {"model": os.environ["MODEL"], "messages": WORDS}}  # fmt: skip
there = {"custom_llm_provider": "openai", "api_base": ASK["api_base"], "api_key": ASK["api_key"]}
kept = litellm.create_file(file=("rows.jsonl", json.dumps(row).encode()), purpose="batch", **there)
batch = litellm.create_batch(input_file_id=kept.id, endpoint="/v1/chat/completions", completion_window="24h", **there)
until = time.monotonic() + 60
while batch.status not in ("completed", "failed"):
    assert time.monotonic() < until, batch
    time.sleep(0.2)
    batch = litellm.retrieve_batch(batch_id=batch.id, **there)
assert batch.request_counts.completed == 1, batch
print("batches")
