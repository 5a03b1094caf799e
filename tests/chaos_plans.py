"""What happens to the workers, and when: the named points of every lane, and the plans made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tests.chaos import Chaos, Point
from tests.chaos_acts import (
    Act,
    at_random,
    cancel_batches,
    cancel_jobs,
    crashed,
    fleet,
    full,
    hour_to_leave,
    kill,
    locked,
    pause,
    two,
)
from tests.lanes import CLAUDE

OPENAI = "jobs.providers.openai_batch:OpenAIBatches"
ANTHROPIC = "jobs.providers.anthropic_batch:AnthropicBatches"
CHAT = "jobs.providers.openai:OpenAIChat"


def before(name: str, count: int = 1) -> Point:
    return "before", name, count


def after(name: str, count: int = 1) -> Point:
    return "after", name, count


PACK = "jobs.packing:packing.pack"
UPLOAD_INTENT, UPLOAD, UPLOADED = "db.batches:intend_upload", f"{OPENAI}.upload", "db.batches:uploaded"
CREATE_INTENT, CREATE, CREATED = "db.batches:intend_create", f"{OPENAI}.submit", "db.batches:created"
SEND, SEEN = f"{ANTHROPIC}.submit", f"{ANTHROPIC}.find"
POLL, ENDED = f"{OPENAI}.poll", "db.batches:ended"
SETTLE, IMPORTED = "jobs.importing:settle.settle_rows", "db.batches:imported"
CLAIM, CALL, SAVE, RESCUE = "db.queue:claim", f"{CHAT}.complete", "jobs.live:_settle_and_claim", "db.rescue:rescue"
CANCELLING, CANCEL = "db.batches:cancelling", f"{OPENAI}.cancel"


POINTS = [
    *(
        make(name)
        for make in (before, after)
        for name in (
            PACK,
            UPLOAD_INTENT,
            UPLOAD,
            UPLOADED,
            CREATE_INTENT,
            CREATE,
            CREATED,
            SEND,
            POLL,
            ENDED,
            SETTLE,
            IMPORTED,
            CLAIM,
            CALL,
            SAVE,
            RESCUE,
            CANCELLING,
            CANCEL,
        )
    ),
    after(SETTLE, 2),
    before(CALL, 3),
    after(CALL, 3),
    before(SAVE, 2),
    after(SAVE, 2),
    after(f"{OPENAI}.find"),
    after(f"{OPENAI}.find_file"),
    before(f"{OPENAI}.delete_file"),
    after(f"{OPENAI}.delete_file"),
]
BOTH = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Plan:
    """Jobs by kind and number, what the sandbox plays, and what happens to whom."""

    name: str
    acts: Sequence[Act]
    jobs: Mapping[str, int] = field(default_factory=lambda: {"batch": 14})
    sandbox: Mapping[str, Any] = field(default_factory=dict)
    ends: Sequence[str] = ("succeeded",)
    even: bool = True  # the ledger is the bill: nothing stays unknown
    on: Sequence[str] = BOTH
    own_server: bool = False  # PostgreSQL's, which only this plan stops

    def play(self, chaos: Chaos) -> None:
        """All of it, to the end of every job."""
        for kind, number in self.jobs.items():
            FILL[kind](chaos, [f"Name the capital of {kind} country number {n}, in one word." for n in range(number)])
        for act in self.acts:
            act(chaos)
        chaos.finish()


def _leaving(chaos: Chaos, prompts: Sequence[str]) -> None:
    """Jobs that leave the batch lane for plain calls in an hour, or when `hour_to_leave` says so."""
    leave_by = chaos.world.clock.now() + timedelta(hours=1)
    plan = [
        {"lane": "batch", "tier": "default", "leave_by": leave_by.isoformat()},
        {"lane": "sync", "tier": "default", "leave_by": None},
    ]
    chaos.world.add(*prompts, plan=plan, leave_by=leave_by)


FILL: dict[str, Callable[[Chaos, Sequence[str]], Any]] = {
    "batch": lambda chaos, prompts: chaos.world.add(*prompts),
    "messages": lambda chaos, prompts: chaos.world.add(*prompts, model=CLAUDE),
    "live": lambda chaos, prompts: chaos.world.add(*prompts, lane="sync"),
    "leaving": _leaving,
}


# ---- the plans ----

HALF_FAIL = {"kind": "fail_rows", "fraction": 0.5, "times": 1}
STALLED = {"faults": [{"kind": "stall", "fraction": 0.5}], "cancel_seconds": 0.3}
KILLS = [
    Plan(
        "files one",
        [
            kill(point)
            for point in (
                before(PACK),
                after(UPLOAD_INTENT),
                after(UPLOAD),
                after(CREATE_INTENT),
                after(CREATE),
                after(POLL),
                before(SETTLE),
                after(SETTLE, 2),
                after(IMPORTED),
            )
        ],
        sandbox={"faults": [HALF_FAIL]},
    ),
    Plan(
        "files two",
        [
            kill(point)
            for point in (
                after(PACK),
                before(UPLOAD),
                after(UPLOADED),
                before(CREATE),
                after(CREATED),
                after(ENDED),
                after(SETTLE),
                before(IMPORTED),
            )
        ],
        sandbox={"late_list_s": 0.4},
    ),
    Plan(
        "messages",
        [
            kill(point)
            for point in (
                after(CREATE_INTENT),
                before(SEND),
                after(SEND),
                after(CREATED),
                after(SETTLE),
                before(IMPORTED),
            )
        ],
        {"messages": 14},
    ),
    Plan("live one", [kill(after(CLAIM)), kill(after(CALL, 3))], {"live": 14}, even=False),
    Plan("live two", [kill(before(CALL, 3)), kill(after(SAVE, 2))], {"live": 14}, even=False),
    Plan("live three", [kill(before(SAVE, 2)), kill(after(RESCUE))], {"live": 14}, even=False),
    Plan(
        "rescue one",
        [
            kill(after(CREATED)),
            hour_to_leave,
            kill(before(CANCELLING)),
            kill(before(CANCEL)),
            kill(after(CANCEL)),
            kill(after(ENDED)),
            kill(after(SETTLE)),
            kill(after(CALL)),
        ],
        {"leaving": 14},
        STALLED,
        even=False,
    ),
    Plan(
        "rescue two",
        [
            kill(after(POLL)),
            hour_to_leave,
            kill(after(CANCELLING)),
            kill(before(ENDED)),
            kill(before(SETTLE)),
            kill(before(IMPORTED)),
            kill(before(SAVE)),
        ],
        {"leaving": 14},
        STALLED,
        even=False,
    ),
    Plan(
        "cancel",
        [
            kill(after(PACK)),
            cancel_jobs(3),
            kill(after(CREATED)),
            cancel_jobs(6),
            cancel_batches,
            kill(before(CANCEL)),
            kill(after(CANCEL)),
            kill(before(SETTLE)),
        ],
        {"batch": 14},
        {"faults": [{"kind": "stall", "fraction": 0.5, "times": 1}]},
        ends=("succeeded", "cancelled"),
    ),
]
PAUSES = [
    Plan("upload, done", [pause(before(UPLOAD))]),
    Plan("upload, both", [pause(before(UPLOAD), after(UPLOAD))]),
    Plan("uploaded", [pause(before(UPLOADED), before(CREATE))]),
    Plan("create, done", [pause(before(CREATE))]),
    Plan("create, deleted", [pause(before(CREATE), after(f"{OPENAI}.delete_file"))]),
    Plan("create, dead file", [pause(before(CREATE), after(f"{OPENAI}.delete_file"), what="kill")]),
    Plan("create, both", [pause(before(CREATE), before(CREATE))]),
    Plan("create, polled", [pause(before(CREATE), after(POLL))], sandbox={"batch_seconds": 1.0}),
    Plan("created, done", [pause(after(CREATE))]),
    Plan("created, adopted", [pause(after(CREATE), after(CREATED))], sandbox={"batch_seconds": 3.0}),
    Plan("import, done", [pause(before(SETTLE))]),
    Plan("import, both", [pause(after(SETTLE), after(SETTLE))]),
    Plan("call, done", [pause(before(CALL, 3))], {"live": 14}),
    Plan("settling, done", [pause(before(SAVE, 2))], {"live": 14}),
    Plan("messages, sent", [pause(after(SEND))], {"messages": 14}),
    Plan("messages, unsent", [pause(before(SEND))], {"messages": 14}, {"batch_seconds": 1.0}),
    Plan(
        "messages, seen", [pause(before(CREATED), after(SEEN), at_once=True)], {"messages": 14}, {"batch_seconds": 6.0}
    ),
]
PAUSES += [
    Plan("rescue, done", [kill(after(CREATED)), hour_to_leave, pause(before(CANCEL))], {"leaving": 14}, STALLED),
    Plan(
        "rescue, both",
        [kill(after(CREATED)), hour_to_leave, pause(after(CANCEL), before(SETTLE))],
        {"leaving": 14},
        STALLED,
    ),
]
MIXED = {"batch": 12, "messages": 8, "live": 12, "leaving": 6}
LATE = {"kind": "lost_create", "times": 1}
OTHERS = [
    Plan(
        "two workers",
        [two([after(UPLOAD), after(CREATE), after(CALL, 2), after(SETTLE), before(SAVE), before(IMPORTED)])],
        MIXED,
        even=False,
    ),
    Plan("random", [at_random(6)], MIXED, {"latency_s": 0.1, "batch_seconds": 1.0, "late_list_s": 0.3}, even=False),
    Plan(
        "answers lost",
        [kill(before(ENDED))],
        {"batch": 14, "messages": 14},
        {
            "late_list_s": 0.3,
            "faults": [
                LATE | {"match": {"path": "/v1/files"}},
                LATE | {"match": {"path": "/v1/batches"}, "how": "hang"},
                LATE | {"match": {"path": "/v1/messages/batches"}, "how": "rst"},
            ],
        },
    ),
    Plan("fleet, killed", [fleet("kill", after(CREATE))], {"batch": 12, "live": 8}, even=False),
    Plan("fleet, paused", [fleet("pause", before(CREATE))], {"batch": 12, "live": 8}, even=False),
    Plan("locked", [locked(3, 1.0)], {"batch": 12, "live": 12}, {"latency_s": 0.1}, even=False, on=("sqlite",)),
    Plan("full", [full(0)], {"batch": 12, "live": 12}, even=False, on=("sqlite",)),
    Plan(
        "crashed",
        [crashed(3)],
        {"batch": 12, "live": 60},
        {"latency_s": 0.3, "batch_seconds": 1.0},
        even=False,
        on=("postgresql",),
        own_server=True,
    ),
]
PLANS = [*KILLS, *PAUSES, *OTHERS]
