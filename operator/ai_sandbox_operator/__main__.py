"""`python -m ai_sandbox_operator`."""

import sys

from .cli import main

sys.exit(main())
