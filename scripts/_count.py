"""Adds up pytest's reports of a folder: one closing line for all stages, and a failure where no test ran."""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def count(folder: Path) -> Counter[str]:
    total: Counter[str] = Counter()
    for report in folder.glob("*.xml"):
        for suite in ElementTree.parse(report).iter("testsuite"):
            total.update({key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")})
    return total


def main() -> int:
    total = count(Path(sys.argv[1]))
    failed = total["failures"] + total["errors"]
    passed = max(0, total["tests"] - failed - total["skipped"])
    print(f"{passed} passed, {failed} failed, {total['skipped']} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
