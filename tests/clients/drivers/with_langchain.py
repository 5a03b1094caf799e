"""LangChain's ChatOpenAI: text, stream, tools, structured output, errors."""

import os

import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Number(BaseModel):
    """A number."""

    n: int


model = ChatOpenAI(model=os.environ["MODEL"], max_retries=0, stream_usage=True)
assert model.invoke("Write a long essay about rivers.").content
print("text")
chunks = list(model.stream("Write a long essay about rivers."))
assert sum(bool(chunk.content) for chunk in chunks) > 5
assert any(chunk.usage_metadata for chunk in chunks)
print("stream")
assert model.bind_tools([Number], tool_choice="any").invoke("A number").tool_calls[0]["name"] == "Number"
print("tools")
assert isinstance(model.with_structured_output(Number, method="json_schema").invoke("A number"), Number)
print("schema")
try:
    model.invoke([("user", "x")], max_tokens=0)
except openai.BadRequestError:
    print("errors")
