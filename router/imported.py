"""What the rows of a batch came to, added up while they are imported."""

from collections import Counter
from dataclasses import dataclass, field

from db.ledger import Charge


@dataclass(slots=True)
class Imported:
    """So far: attempts by state and by error, tokens, nano-dollars, and how many cost nobody knows what."""

    states: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    unknown: int = 0

    def add(self, charge: Charge) -> None:
        """One more row."""
        self.states[charge.state.value] += 1
        self.sources[charge.cost_source.value] += 1
        self.input_tokens += charge.input_tokens or 0
        self.output_tokens += charge.output_tokens or 0
        if charge.error_code:
            self.codes[charge.error_code] += 1
        if charge.cost_nano is None:
            self.unknown += 1
        else:
            self.cost_nano += charge.cost_nano
