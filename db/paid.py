"""What an attempt is now taken to have cost, and what it would have as a plain call: as it was last re-priced."""

from sqlalchemy import func

from db.tables import Attempt, table

_ATTEMPT = table(Attempt)
PAID = func.coalesce(_ATTEMPT.c.adjusted_nano, _ATTEMPT.c.cost_nano)
PLAIN = func.coalesce(_ATTEMPT.c.adjusted_standard_nano, _ATTEMPT.c.standard_nano)
