"""What the rest of the package says in the words of the command line, in those of a client of the server. Pure.

Much of it is kept with its job, where both are to read it; so it is reworded when it is told.
"""

import re

_OPERATOR = "whoever runs this server"
_PHRASES = [
    (re.compile(given), told)
    for given, told in (
        (r"\bafter `shunter budget set \S+ --usd N`", f"after {_OPERATOR} has raised it"),
        (
            r"\blower --max-tokens, or raise it with `shunter budget set \S+ --usd N`",
            f"lower max_completion_tokens (max_output_tokens of a response), or have it raised by {_OPERATOR}",
        ),
        (r"\bso it is held: `shunter jobs retry ID` sends it again", "so it is not sent again by itself: ask anew"),
        (
            r"\bno key for (\S+): set (.+), or try `shunter demo`",
            rf"this server has no key for \1: name another model, or have \2 set by {_OPERATOR}",
        ),
        (
            r"\bthe key .+ was used by job (\w+), whose words were pruned: .*",
            r"that key was used by job \1, whose words were pruned: send another key",
        ),
        (
            r"\bthe key .+ was used for another request \(job (\w+)\): .*",
            r"that key was used for another request (job \1): send another key",
        ),
    )
]
_OPTION = re.compile(r"(?<![\w'\"-])--([a-z]+(?:-[a-z]+)*)")


def reworded(text: str) -> str:
    """The text without the command line's remedies; what a provider said comes out as it is."""
    for given, told in _PHRASES:
        text = given.sub(told, text)
    return text


def of_fields(text: str) -> str:
    """The same of a text of our own, whose options are fields here: `--max-tokens` is `max_tokens`."""
    return _OPTION.sub(lambda found: found[1].replace("-", "_"), reworded(text))
