"""What providers count, from their words for it: parts that are larger than the whole are cut to it."""

from typing import Any

import pytest

from jobs.chat import Usage
from jobs.providers import anthropic_wire, openai_wire


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (
            {"prompt_tokens": 350, "completion_tokens": 90, "prompt_tokens_details": {"audio_tokens": 250},
             "completion_tokens_details": {"audio_tokens": 60, "reasoning_tokens": 5}},
            Usage(350, 90, reasoning=5, audio_input=250, audio_output=60),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 4,
             "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 3, "audio_tokens": 9},
             "completion_tokens_details": {"audio_tokens": 5}},
            Usage(10, 4, 6, 3, audio_input=1, audio_output=4),
        ),
        ({"input_tokens": 10, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 6}}, Usage(10, 4, 6)),
    ],
)  # fmt: skip
def test_openais_audio_is_part_of_what_is_not_cached(raw: Any, usage: Usage) -> None:
    assert openai_wire.usage_of(raw) == usage


@pytest.mark.parametrize(
    ("more", "usage"),
    [
        ({}, Usage(60, 5, 30, 20)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 15, "ephemeral_5m_input_tokens": 5}},
         Usage(60, 5, 30, 20, cache_write_1h=15)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 99}}, Usage(60, 5, 30, 20, cache_write_1h=20)),
        ({"cache_creation": None, "server_tool_use": {"web_search_requests": 2}}, Usage(60, 5, 30, 20, searches=2)),
        ({"server_tool_use": {"web_search_requests": -2}}, Usage(60, 5, 30, 20)),
    ],
)  # fmt: skip
def test_anthropics_sums_and_what_it_keeps_for_an_hour(more: Any, usage: Usage) -> None:
    raw = {"input_tokens": 10, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 5}
    assert anthropic_wire.usage_of({**raw, **more}) == usage
