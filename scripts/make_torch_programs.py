"""Write tests/torch/programs/NAME.txt: what PyTorch prints for each program there, for our own words to print, too.

It needs PyTorch (`python -m pip install torch`). The programs are written in PyTorch's words, and run alone: `python
ch03_causal_mask.py` runs under PyTorch, `python -m tinygrad_llm.torch ch03_causal_mask.py` under this package.
"""

import os
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parents[1] / "tests" / "torch" / "programs"
SHARED = "gpt_of_the_book.py"  # which others import


def main() -> None:
    found = [path for path in sorted(PROGRAMS.glob("*.py")) if path.name != SHARED]
    # One thread: several may add numbers in another order from one run to the next.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for path in found:
        done = subprocess.run(
            [sys.executable, path.name], cwd=PROGRAMS, env=environment, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            sys.exit(f"{path.name}: {done.stderr}")
        path.with_suffix(".txt").write_text(done.stdout, encoding="utf-8")
    print(f"{PROGRAMS}: {len(found)} programs")


if __name__ == "__main__":
    main()
