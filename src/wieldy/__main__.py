"""`python -m wieldy` is `wieldy`."""

import sys

from wieldy.cli import main

sys.exit(main())
