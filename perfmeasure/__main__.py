"""``python -m perfmeasure``: the same as the ``perfmeasure`` command."""

from perfmeasure.cli import main

if __name__ == "__main__":
    main()
