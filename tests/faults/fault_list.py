"""All faults, by name."""

from __future__ import annotations

import fault_damage
import fault_kinds
import fault_smoke
import fault_tracker
from fault_trial import Fault


def all_faults() -> list[Fault]:
    """Return the faults of both pipelines; each has a name of its own."""
    faults = [
        *fault_kinds.kills(),
        *fault_kinds.deaths(),
        *fault_kinds.deaths_of_dvc(),
        *fault_kinds.full_disks(),
        *fault_kinds.at_the_same_time(),
        *fault_damage.damaged_results(),
        *fault_damage.damaged_work(),
        *fault_damage.stale_leftovers(),
        *fault_damage.edits(),
        *fault_tracker.trackers(),
        *fault_smoke.smoke_faults(),
    ]
    names = [fault.name for fault in faults]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return faults
