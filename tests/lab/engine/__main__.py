"""`python -m lab.engine MODEL [flags of vllm serve]`."""

import sys

from lab.engine.serve import main

sys.exit(main(sys.argv[1:]))
