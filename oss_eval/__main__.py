"""`python -m oss_eval` is `oss-eval`."""

import sys

from oss_eval.cli.main import main

sys.exit(main())
