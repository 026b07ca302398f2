"""`python -m lab.linode`: the simulator as a process, and hands for it."""

import sys

from lab.linode.cli import main

sys.exit(main())
