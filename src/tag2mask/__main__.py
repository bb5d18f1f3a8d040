"""`python -m tag2mask` is the same as the command `tag2mask`."""

import sys

from tag2mask.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
