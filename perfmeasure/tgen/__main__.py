"""``python -m perfmeasure.tgen GRAPHML``: see `perfmeasure.tgen.program`."""

import sys

from perfmeasure.tgen.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
