"""`python -m tinygrad_llm`: the same as `tinygrad-llm`."""

import sys

from tinygrad_llm.cli import main

if __name__ == "__main__":
    sys.exit(main())
