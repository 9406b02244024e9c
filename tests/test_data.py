"""Every file that ships in data/ is the one that data/README.md describes."""

import hashlib
import re
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"


def test_the_table_names_every_file_and_its_hash() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (DATA / "README.md").read_text("utf-8"), re.M)
    files = [path for path in DATA.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    found = {
        path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path != DATA / "README.md"
    }
    assert dict(rows) == found
    assert len(rows) == len(found)
