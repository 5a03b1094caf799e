"""openai-python: text, stream, tools, schema, errors, responses, batches."""

import json
import os
import time

import openai
from pydantic import BaseModel

MODEL = os.environ["MODEL"]
ASK = [{"role": "user", "content": "Write a long essay about rivers."}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip


class Number(BaseModel):
    n: int


client = openai.OpenAI(max_retries=0)
assert client.chat.completions.create(model=MODEL, messages=ASK).choices[0].message.content
print("text")
with client.chat.completions.stream(model=MODEL, messages=ASK, stream_options={"include_usage": True}) as stream:
    assert sum(event.type == "content.delta" for event in stream) > 5
    assert stream.get_final_completion().usage.completion_tokens > 0
print("stream")
called = client.chat.completions.create(model=MODEL, messages=ASK, tools=[TOOL], tool_choice="required").choices[0]
assert json.loads(called.message.tool_calls[0].function.arguments)["city"]
print("tools")
assert isinstance(client.chat.completions.parse(model=MODEL, messages=ASK, response_format=Number)
                  .choices[0].message.parsed, Number)  # fmt: skip
print("schema")
try:
    client.chat.completions.create(model=MODEL, messages=[])
except openai.BadRequestError:
    print("errors")
assert client.responses.create(model=MODEL, input="Hello").output_text
print("responses")
rows = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": MODEL, "messages": ASK}} for n in range(3)]  # fmt: skip
content = "\n".join(map(json.dumps, rows)).encode()
file = client.files.create(file=("rows.jsonl", content), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
until = time.monotonic() + 60
while batch.status not in ("completed", "failed"):
    assert time.monotonic() < until, batch
    time.sleep(0.2)
    batch = client.batches.retrieve(batch.id)
assert batch.request_counts.completed == 3, batch
found = {json.loads(line)["custom_id"] for line in client.files.content(batch.output_file_id).text.splitlines()}
assert found == {"r0", "r1", "r2"}
print("batches")
