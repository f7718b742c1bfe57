"""Inject faults and print what came of each: `python tests/faults/run.py [--only EXPRESSION]`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = map(str, (TESTS.parent, TESTS, TESTS / "data"))

from fault_list import all_faults  # noqa: E402
from fault_projects import Templates  # noqa: E402
from fault_table import write_table  # noqa: E402
from fault_trial import Fault, Verdict, attempt, show  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name matches this expression")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--folder", type=Path, help="where projects are made and failed trials stay")
    parser.add_argument("--results", type=Path, help="file that gets every verdict, a line of JSON each")
    parser.add_argument("--table", type=Path, help="write the table into this page")
    arguments = parser.parse_args()
    faults = [fault for fault in all_faults() if re.search(arguments.only, fault.name)]
    if arguments.list:
        print("\n".join(fault.name for fault in faults))
        return
    templates = Templates(arguments.folder or Path(tempfile.mkdtemp(prefix="faults-")))

    def work(fault: Fault) -> Verdict:
        verdict = attempt(fault, templates)
        show(verdict)
        if arguments.results:
            with open(arguments.results, "a") as stream:
                stream.write(json.dumps(vars(verdict)) + "\n")
        return verdict

    with ThreadPoolExecutor(arguments.jobs) as pool:
        verdicts = list(pool.map(work, faults))
    if arguments.table:
        write_table(verdicts, arguments.table)
    bad = [verdict.fault for verdict in verdicts if not verdict.is_good]
    print(f"{len(verdicts)} faults, {len(bad)} with another end than they should have: {bad}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
