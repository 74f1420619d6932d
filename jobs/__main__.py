"""``python -m jobs``: the command line of an interpreter that is named, wherever its scripts lie."""

from jobs.cli import main

main()
