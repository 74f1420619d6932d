"""``hisam`` as a file, since spark-submit takes no console script: ``spark-submit hisam.py extract -c hisam.yaml``.

It lies in a folder of its own: of what is beside it, ``tokenize`` would be imported in place of Python's.
"""

from jobs.cli import main

if __name__ == "__main__":
    main()
